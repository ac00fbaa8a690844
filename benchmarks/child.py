"""One workload on one store, once, in a process of its own: `python -m benchmarks.child W1 memory 1.0`.

A fresh process for each measurement keeps one workload's garbage, caches and peak memory out of the next one's figures.
The figures go to standard output as JSON.
"""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks import crash, idle, large, latency, postgres, stored, throughput
from benchmarks.measure import Figure, Setup, Workload
from benchmarks.server import postmaster_of
from benchmarks.stores import KINDS

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in sorted(
        throughput.WORKLOADS
        + latency.WORKLOADS
        + large.WORKLOADS
        + crash.WORKLOADS
        + idle.WORKLOADS
        + stored.WORKLOADS
        + postgres.WORKLOADS,
        key=lambda item: (-ord(item.name[0]), len(item.name.rstrip("s")), item.name),
    )
}


async def measure(workload: str, store: str, scale: float, directory: Path, url: str) -> list[Figure]:
    postmaster = await postmaster_of(url) if url else None
    return await WORKLOADS[workload].run(Setup(KINDS[store], directory, scale, url, postmaster))


def main(workload: str, store: str, scale: str, url: str = "") -> None:
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="derecho-bench-", dir=Path.cwd() / "benchmarks" / "results") as directory:
        figures = asyncio.run(measure(workload, store, float(scale), Path(directory), url))
    sys.stdout.buffer.write(msgspec.json.encode(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
