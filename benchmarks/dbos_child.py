"""The same workloads written for DBOS Transact: `.venv-bench/bin/python benchmarks/dbos_child.py W1 1.0`.

Its database gets the settings that Derecho's has (WAL, synchronous=FULL), which suit it better than its defaults. A
step of DBOS is what stands beside both an activity and a step of Derecho.
"""

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from dbos import DBOS, DBOSConfig

Figures = list[tuple[str, float, str, str]]


@DBOS.step()
async def noop(number: int) -> int:
    return number


@DBOS.workflow()
async def in_sequence(count: int) -> int:
    return sum([await noop(number) for number in range(count)])


async def run_all(count: int, steps: int) -> float:
    """Seconds for so many workflows, started at once."""
    began = time.perf_counter()

    async def one() -> int:
        handle = await DBOS.start_workflow_async(in_sequence, steps)
        return await handle.get_result()

    assert await asyncio.gather(*(one() for _ in range(count))) == [sum(range(steps))] * count
    return time.perf_counter() - began


async def one_step_each(scale: float) -> Figures:
    count = max(10, round(2_000 * scale))
    return [("workflows/s", count / await run_all(count, 1), "1/s", "higher")]


async def ten_steps_each(scale: float, what: str) -> Figures:
    count = max(10, round(300 * scale))
    return [(f"{what}/s", count * 10 / await run_all(count, 10), "1/s", "higher")]


async def from_start_to_result(scale: float) -> Figures:
    figures: Figures = []
    for steps, what in ((0, "no activity"), (1, "one activity")):
        waits = []
        for _ in range(max(50, round(200 * scale))):
            await asyncio.sleep(0.005)
            began = time.perf_counter()
            handle = await DBOS.start_workflow_async(in_sequence, steps)
            assert await handle.get_result() == 0
            waits.append((time.perf_counter() - began) * 1e3)
        waits.sort()
        figures += [
            (f"{what}, p50", waits[len(waits) // 2], "ms", "lower"),
            (f"{what}, p99", waits[int(len(waits) * 0.99)], "ms", "lower"),
        ]
    return figures


async def measure(workload: str, scale: float) -> Figures:
    await run_all(20, 2)
    match workload:
        case "W1":
            return await one_step_each(scale)
        case "W2":
            return await ten_steps_each(scale, "activities")
        case "W2s":
            return await ten_steps_each(scale, "steps")
        case _:
            return await from_start_to_result(scale)


def main(workload: str, scale: str) -> None:
    with tempfile.TemporaryDirectory(prefix="peer-", dir=Path(__file__).parent / "results") as directory:
        path = Path(directory) / "dbos.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file; FULL is SQLite's own default
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": f"sqlite:///{path}",
            "console_log_level": "ERROR",
            "run_admin_server": False,
        }
        DBOS(config=config)
        DBOS.launch()
        figures = asyncio.run(measure(workload, float(scale)))
        DBOS.destroy()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
