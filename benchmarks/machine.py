"""Where figures come from: the machine, the versions, and how busy it was with other things."""

import asyncio
import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

_REST = 3.0


def describe(directory: Path) -> dict[str, str]:
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "revision": _revision(directory),
        "python": f"{platform.python_version()}, a million calls of a method in {_calls():.0f} ms",
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} x {_processor()}",
        "load before": load,
        "one fdatasync": f"{_fdatasync(directory):.2f} ms",
        "memory": f"the first touch of a page after {_REST:g} s of rest takes {_first_touch():.1f} µs",
    }


def of_server(url: str) -> dict[str, str]:
    """What a PostgreSQL server says of itself."""
    return asyncio.run(_ask(url)) if url else {}


async def _ask(url: str) -> dict[str, str]:
    import asyncpg  # the other stores are measured without it

    names = ("fsync", "full_page_writes", "synchronous_commit", "shared_buffers", "max_wal_size")
    connection = await asyncpg.connect(url)
    try:
        settings = [f"{name}={await connection.fetchval(f'SHOW {name}')}" for name in names]
        return {"postgresql": f"{await connection.fetchval('SHOW server_version')}, {' '.join(settings)}"}
    finally:
        await connection.close()


def _revision(directory: Path) -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


class _Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1


def _calls() -> float:
    """Milliseconds for a million calls of a method: how fast this interpreter is, here and now.

    Builds of one version differ: without profile-guided optimisation everything takes a fifth to a third longer.
    """
    counter, add = _Counter(), _Counter.add
    spent = []
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(100_000):
            add(counter)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent) * 1e4


def _fdatasync(directory: Path) -> float:
    """Milliseconds for making one appended page durable: what a commit costs at least."""
    sync = getattr(os, "fdatasync", os.fsync)
    spent = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            sync(file.fileno())
            spent.append(time.perf_counter() - began)
    return statistics.median(spent) * 1e3


def _first_touch() -> float:
    """Microseconds of CPU for touching a page after a rest, beyond those for touching it again.

    Nearly nothing, but where a host takes idle memory back from its virtual machines: see `resident`.
    """
    size = os.sysconf("SC_PAGE_SIZE")
    pages = bytearray(size * 1_000)

    def touch() -> float:
        began = time.process_time()
        for at in range(0, len(pages), size):
            pages[at] = 1
        return time.process_time() - began

    touch()
    time.sleep(_REST)
    return (touch() - touch()) / 1_000 * 1e6
