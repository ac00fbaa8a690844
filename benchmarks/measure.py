"""What a workload is given, and what it gives: figures with units, taken by wall clock and by CPU time."""

import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.definitions import ACTIVITIES, WORKFLOWS
from benchmarks.server import cpu_of
from benchmarks.stores import StoreKind
from derecho import Engine
from derecho.journal.store import Store


class Figure(NamedTuple):
    """One measured number. `better` says which way is good, for those who compare."""

    name: str
    value: float
    unit: str
    better: str = "lower"


class Setup:
    """A new store, and how large the workload shall be (1.0 is the size that docs speak of).

    `directory` is empty and goes away; `url` is of an empty database; `postmaster` of the server with it, if known.
    """

    def __init__(
        self, kind: StoreKind, directory: Path, scale: float, url: str = "", postmaster: int | None = None
    ) -> None:
        self.kind = kind
        self.directory = directory
        self.scale = scale
        self.url = url
        self.postmaster = postmaster
        self.store = self.new_store()

    def new_store(self) -> Store:
        """Another one on the same file or database, as another process would have it."""
        return self.kind.make(self.directory, self.url)

    def count(self, full: int, least: int = 10) -> int:
        return max(least, round(full * self.scale))

    def seconds(self, full: float) -> float:
        return full if self.scale >= 1 else max(1.5, full * self.scale)

    def engine(self, **options: Any) -> Engine:
        return Engine(self.store, workflows=WORKFLOWS, activities=ACTIVITIES, **options)

    def watch(self) -> "Stopwatch":
        return Stopwatch(self.postmaster)


class Workload(NamedTuple):
    """`run` measures once and asserts the workload's results; `title` says what it does, in full size."""

    name: str
    title: str
    run: Callable[[Setup], Awaitable[list[Figure]]]
    stores: tuple[str, ...] = ("memory", "sqlite", "sqlite-normal", "postgres")
    default: bool = True
    """Whether it is among those that run when none are named."""


class Stopwatch:
    """Wall seconds, CPU seconds of this process, and those of the database's server since it was made."""

    def __init__(self, postmaster: int | None = None) -> None:
        self._postmaster = postmaster
        self._server = cpu_of(postmaster)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._wall

    @property
    def cpu(self) -> float:
        return time.process_time() - self._cpu

    @property
    def server(self) -> float:
        return cpu_of(self._postmaster) - self._server

    def figures(self, what: str, count: int) -> list[Figure]:
        """Throughput, and CPU time for each one: the second hardly depends on what else the machine does."""
        wall, cpu = self.wall, self.cpu
        figures = [
            Figure(f"{what}/s", count / wall, "1/s", "higher"),
            Figure(f"CPU per 1,000 {what}", cpu / count * 1e6, "ms"),
        ]
        if self._postmaster is not None:
            figures.append(Figure(f"the server's CPU per 1,000 {what}", self.server / count * 1e6, "ms"))
        return figures


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
