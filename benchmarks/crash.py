"""W7: kill -9 in the middle of 500 workflows, and how long the next process takes to finish them.

The first process is `python -m benchmarks.crash STORE …`. Each attempt of an activity leaves a
line in a file, which survives the death of its process: so it is known when the middle is reached, and what ran twice.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import derecho
from benchmarks.measure import Figure, Setup, Workload
from benchmarks.stores import KINDS
from derecho import Context, Engine, Store

EACH, WIDTH = 10, 8


@derecho.activity("recorded")
async def recorded(number: int) -> int:
    os.write(derecho.current_activity().resource(Attempts).descriptor, f"{number:{WIDTH - 1}}\n".encode())
    return number


@derecho.workflow("ten-recorded")
async def ten_recorded(ctx: Context, first: int) -> int:
    return sum([await recorded.execute(ctx, number) for number in range(first, first + EACH)])


class Attempts:
    """The file with a line for each attempt, and what it says."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "attempts"
        self.descriptor = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def __len__(self) -> int:
        return os.stat(self._path).st_size // WIDTH

    def counted(self) -> Counter[int]:
        return Counter(map(int, self._path.read_text().split()))


def engine(store: Store, attempts: Attempts, lease: float) -> Engine:
    return Engine(store, workflows=[ten_recorded], activities=[recorded], resources={Attempts: attempts}, lease=lease)


async def killed_in_the_middle(setup: Setup) -> list[Figure]:
    """With a lease of a second, and with the default of ten (not in a quick run)."""
    figures = await _killed(setup, setup.directory / "short", "a", 1.0)
    return figures if setup.scale < 1 else figures + await _killed(setup, setup.directory / "default", "b", 10.0)


async def _killed(setup: Setup, directory: Path, prefix: str, lease: float) -> list[Figure]:
    count = setup.count(500)
    attempts = begin_and_kill(setup, directory, prefix, lease, count)
    watch = setup.watch()
    async with engine(setup.store, attempts, lease) as again:
        handles = [again.client.get(ten_recorded, f"{prefix}-{n}") for n in range(count)]
        results = await asyncio.gather(*(handle.result() for handle in handles))
        finished = watch.wall
    assert results == [sum(range(n * EACH, n * EACH + EACH)) for n in range(count)]
    ran = attempts.counted()
    assert set(ran) == set(range(count * EACH))
    return [
        Figure(f"from the restart to the end, lease {lease:g} s", finished, "s"),
        Figure(f"activities run twice, lease {lease:g} s", sum(times > 1 for times in ran.values()), ""),
    ]


def begin_and_kill(setup: Setup, directory: Path, prefix: str, lease: float, count: int) -> Attempts:
    directory.mkdir()
    attempts = Attempts(directory)
    arguments = (setup.kind.name, setup.directory, setup.url, prefix, lease, count, directory)
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.crash", *map(str, arguments)])
    while len(attempts) < count * EACH // 2:
        assert process.poll() is None, "the first process ended by itself"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(attempts) < count * EACH, "it was too late to kill it"
    return attempts


async def first(store: Store, prefix: str, lease: float, count: int, directory: Path) -> None:
    async with engine(store, Attempts(directory), lease) as running:
        calls = [(f"{prefix}-{n}", ten_recorded.bind(n * EACH)) for n in range(count)]
        handles = await running.client.start_many(calls)
        await asyncio.gather(*(handle.result() for handle in handles))


def main(store: str, at: str, url: str, prefix: str, lease: str, count: str, directory: str) -> None:
    asyncio.run(first(KINDS[store].make(Path(at), url), prefix, float(lease), int(count), Path(directory)))


WORKLOADS = [
    Workload(
        "W7",
        "kill -9 in the middle of 500 workflows with 10 activities each",
        killed_in_the_middle,
        ("sqlite", "sqlite-normal", "postgres"),
    )
]

if __name__ == "__main__":
    main(*sys.argv[1:])
