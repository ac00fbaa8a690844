"""The same workloads written for DBOS Transact: `.venv-bench/bin/python -m benchmarks.dbos_child W1 1.0 sqlite`.

Its database has the durability that Derecho's has: SQLite WAL with synchronous=FULL, which suits it better than its
own default, or the very server. A step of DBOS is what stands beside both an activity and a step of Derecho.
"""

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

from benchmarks.relay import Counts, Relay

Figures = list[tuple[str, float, str, str]]


@DBOS.step()
async def noop(number: int) -> int:
    return number


@DBOS.workflow()
async def in_sequence(count: int) -> int:
    return sum([await noop(number) for number in range(count)])


@DBOS.workflow()
async def in_parallel(count: int) -> int:
    return sum(await asyncio.gather(*(noop(number) for number in range(count))))


@DBOS.workflow()
async def collect(count: int) -> int:
    return sum([await DBOS.recv_async(timeout_seconds=600) for _ in range(count)])


def at_least(full: int, scale: float, least: int = 10) -> int:
    return max(least, round(full * scale))


async def run_all(count: int, steps: int) -> float:
    """Seconds for so many workflows, started at once."""
    began = time.perf_counter()

    async def one() -> int:
        handle = await DBOS.start_workflow_async(in_sequence, steps)
        return await handle.get_result()

    assert await asyncio.gather(*(one() for _ in range(count))) == [sum(range(steps))] * count
    return time.perf_counter() - began


def throughput(what: str, count: int, seconds: float, cpu: float) -> Figures:
    return [
        (f"{what}/s", count / seconds, "1/s", "higher"),
        (f"CPU per 1,000 {what}", (time.process_time() - cpu) / count * 1e6, "ms", "lower"),
    ]


async def one_step_each(scale: float) -> Figures:
    count, cpu = at_least(2_000, scale), time.process_time()
    return throughput("workflows", count, await run_all(count, 1), cpu)


async def ten_steps_each(scale: float, what: str = "activities") -> Figures:
    count, cpu = at_least(300, scale), time.process_time()
    return throughput(what, count * 10, await run_all(count, 10), cpu)


async def ten_steps_each_called_so(scale: float) -> Figures:
    return await ten_steps_each(scale, "steps")


async def from_start_to_result(scale: float) -> Figures:
    figures: Figures = []
    cases = [
        (steps, f"{what}{when}", rest)
        for steps, what in ((0, "no activity"), (1, "one activity"))
        for when, rest in (("", 0.0), (", after 5 ms of rest", 0.005))
    ]
    for steps, what, rest in cases:
        waits = []
        for _ in range(at_least(200, scale, 50)):
            if rest:
                await asyncio.sleep(rest)
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


async def parallel_steps(scale: float) -> Figures:
    """Only to 4,000: its cost for each grows with their number."""
    figures: Figures = []
    for full in (1_000, 4_000):
        count, began = at_least(full, scale), time.perf_counter()
        handle = await DBOS.start_workflow_async(in_parallel, count)
        assert await handle.get_result() == sum(range(count))
        figures.append((f"activities/s, {count:,}", count / (time.perf_counter() - began), "1/s", "higher"))
    return figures


async def many_messages(scale: float) -> Figures:
    count, cpu = at_least(1_000, scale), time.process_time()
    with SetWorkflowID("collect"):
        handle = await DBOS.start_workflow_async(collect, count)
    began = time.perf_counter()
    await asyncio.gather(*(DBOS.send_async("collect", number) for number in range(count)))
    assert await handle.get_result() == sum(range(count))
    return throughput("signals into one", count, time.perf_counter() - began, cpu)


async def many_steps(scale: float) -> Figures:
    count, cpu = at_least(2_000, scale, 400), time.process_time()
    seconds = await run_all(1, count)
    return [
        ("per step", seconds / count * 1e3, "ms", "lower"),
        ("CPU per step", (time.process_time() - cpu) / count * 1e6, "µs", "lower"),
    ]


async def under_load(scale: float) -> Figures:
    """The timed half of P1."""
    figures = await ten_steps_each(scale)
    numbers, waits = iter(range(at_least(2_000, scale))), []

    async def caller() -> None:
        for _ in numbers:
            began = time.perf_counter()
            handle = await DBOS.start_workflow_async(in_sequence, 1)
            assert await handle.get_result() == 0
            waits.append((time.perf_counter() - began) * 1e3)

    await asyncio.gather(*(caller() for _ in range(32)))
    waits.sort()
    return [
        *figures,
        ("from start to result, 32 at a time, p50", waits[len(waits) // 2], "ms", "lower"),
        ("from start to result, 32 at a time, p99", waits[int(len(waits) * 0.99)], "ms", "lower"),
    ]


async def counted(scale: float, relay: Relay) -> Figures:
    """The other half: the same work, through a relay that counts."""
    await run_all(20, 10)
    figures: Figures = []
    count = at_least(300, scale)
    for runs, steps, what in ((count, 10, f"{count} at once"), (1, at_least(200, scale), "one alone")):
        before: Counts = relay.counts
        await run_all(runs, steps)
        found = relay.counts.since(before, runs * steps)
        figures += [(f"{name} per activity, {what}", value, "", "lower") for name, value in found]
    return figures


WORKLOADS: dict[str, Callable[[float], Awaitable[Figures]]] = {
    "W1": one_step_each,
    "W2": ten_steps_each,
    "W2s": ten_steps_each_called_so,
    "W3": from_start_to_result,
    "W4": parallel_steps,
    "W6": many_messages,
    "W8": many_steps,
    "P1": under_load,
}


async def measure(workload: str, scale: float) -> Figures:
    await run_all(20, 2)
    return await WORKLOADS[workload](scale)


def main(workload: str, scale: str, store: str, url: str = "") -> None:
    with tempfile.TemporaryDirectory(prefix="peer-", dir=Path(__file__).parent / "results") as directory:
        path = Path(directory) / "dbos.db"
        if store == "sqlite":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # stays with the file; FULL is SQLite's own default
            url = f"sqlite:///{path}"
        figures = launched(url, lambda: measure(workload, float(scale)))
        if workload == "P1":
            with Relay(url) as relay:
                figures += launched(relay.url, lambda: counted(float(scale), relay))
    print(json.dumps(figures))


def launched(url: str, work: Callable[[], Coroutine[Any, Any, Figures]]) -> Figures:
    """What `work` finds, with DBOS on this database."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": url,
        "console_log_level": "ERROR",
        "run_admin_server": False,
    }
    DBOS(config=config)
    DBOS.launch()
    try:
        return asyncio.run(work())
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main(*sys.argv[1:])
