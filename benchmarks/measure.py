"""What a workload is given, and what it gives: figures with units, taken by wall clock and by CPU time."""

import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.definitions import ACTIVITIES, WORKFLOWS
from benchmarks.stores import StoreKind
from derecho import Engine


class Figure(NamedTuple):
    """One measured number. `better` says which way is good, for those who compare."""

    name: str
    value: float
    unit: str
    better: str = "lower"


class Setup:
    """A store in a directory of its own, and how large the workload shall be (1.0 is the size that docs speak of)."""

    def __init__(self, kind: StoreKind, directory: Path, scale: float) -> None:
        self.kind = kind
        self.store = kind.make(directory)
        self.directory = directory
        self._scale = scale

    def count(self, full: int, least: int = 10) -> int:
        return max(least, round(full * self._scale))

    def seconds(self, full: float) -> float:
        return full if self._scale >= 1 else full / 2

    def engine(self, **options: Any) -> Engine:
        return Engine(self.store, workflows=WORKFLOWS, activities=ACTIVITIES, **options)


class Workload(NamedTuple):
    """`run` measures once and asserts the workload's results; `title` says what it does, in full size."""

    name: str
    title: str
    run: Callable[[Setup], Awaitable[list[Figure]]]


class Stopwatch:
    """Wall seconds and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._wall

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu

    def figures(self, what: str, count: int) -> list[Figure]:
        """Throughput, and CPU time for each one: the second hardly depends on what else the machine does."""
        wall, cpu = self.wall, self.cpu
        return [
            Figure(f"{what}/s", count / wall, "1/s", "higher"),
            Figure(f"CPU per 1,000 {what}", cpu / count * 1e6, "ms"),
        ]


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def peak_memory() -> float:
    """Megabytes that this process had at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def memory() -> float:
    """Bytes that this process has now; the peak where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory() * 2**20
    return int(statm.read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
