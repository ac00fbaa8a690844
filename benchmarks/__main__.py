"""`python -m benchmarks`: run the workloads, print the table, keep the figures as JSON.

Each run of a workload is a process of its own; the runs of all workloads are interleaved, so that a noisy minute of the
machine does not hit one of them alone. The table shows the median, and the least and the greatest.
"""

import argparse
import json
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import peers
from benchmarks.child import WORKLOADS
from benchmarks.measure import Figure
from benchmarks.stores import KINDS

RESULTS = Path(__file__).parent / "results"
"""Ignored by git: figures of one machine say little about another."""


class Row(NamedTuple):
    """All values of one figure of one workload on one store."""

    workload: str
    store: str
    durability: str
    figure: str
    unit: str
    better: str
    values: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Derecho on this machine.")
    parser.add_argument("--runs", type=int, help="runs of each workload, of which the median counts (default 3)")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="workloads, such as W1,W4")
    parser.add_argument("--stores", default="memory,sqlite", help="any of " + ",".join(KINDS))
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, once: does everything still work?")
    parser.add_argument("--peers", action="store_true", help="measure DBOS Transact beside it (see make bench-peers)")
    parser.add_argument("--json", type=Path, help="where the figures go (default: a file in benchmarks/results)")
    chosen = parser.parse_args()
    chosen.runs = chosen.runs or (1 if chosen.quick else 3)
    chosen.only, chosen.stores = chosen.only.split(","), chosen.stores.split(",")
    unknown = [name for name in chosen.only if name not in WORKLOADS] + [s for s in chosen.stores if s not in KINDS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; workloads: {', '.join(WORKLOADS)}; stores: {', '.join(KINDS)}")
    if chosen.peers and not peers.PYTHON.exists():
        parser.error("the peers are not installed: run make bench-peers first")
    return chosen


def measure(workload: str, store: str, scale: float) -> list[Figure]:
    command = [sys.executable, "-m", "benchmarks.child", workload, store, str(scale)]
    done = subprocess.run(command, cwd=RESULTS.parents[1], stdout=subprocess.PIPE, check=True, timeout=300)
    return msgspec.json.decode(done.stdout, type=list[Figure])


def run(chosen: argparse.Namespace) -> list[Row]:
    scale = 0.1 if chosen.quick else 1.0
    rows: dict[tuple[str, str, str], Row] = {}
    for number in range(1, chosen.runs + 1):
        for workload in chosen.only:
            for store in chosen.stores:
                print(f"\r\033[K run {number} of {chosen.runs}: {workload} on {store}", end="", file=sys.stderr)
                for figure in measure(workload, store, scale):
                    _add(rows, workload, store, KINDS[store].durability, figure)
            if chosen.peers and workload in peers.WORKLOADS:
                for figure in peers.measure(workload, scale):
                    _add(rows, workload, peers.NAME, peers.DURABILITY, figure)
    print("\r\033[K", end="", file=sys.stderr)
    return sorted(rows.values(), key=lambda row: (row.workload, chosen.only.index(row.workload)))


def _add(rows: dict[tuple[str, str, str], Row], workload: str, store: str, durability: str, figure: Figure) -> None:
    key = (workload, figure.name, store)
    row = rows.get(key)
    if row is None:
        row = rows[key] = Row(workload, store, durability, figure.name, figure.unit, figure.better, [])
    row.values.append(figure.value)


def table(rows: list[Row]) -> Iterator[str]:
    for workload in dict.fromkeys(row.workload for row in rows):
        mine = [row for row in rows if row.workload == workload]
        stores = list(dict.fromkeys((row.store, row.durability) for row in mine))
        yield f"\n{workload}  {WORKLOADS[workload].title}"
        for figure in dict.fromkeys(row.figure for row in mine):
            for store, durability in stores:
                for row in mine:
                    if (row.figure, row.store) == (figure, store):
                        yield _line(row, durability, mine)


def _line(row: Row, durability: str, others: list[Row]) -> str:
    spread = f"{_number(min(row.values))} … {_number(max(row.values))}"
    line = f"  {row.figure:<38} {row.store:<14} {durability:<24} {_number(row.median):>10} {row.unit:<4} {spread:>19}"
    peer = next((other for other in others if other.store == peers.NAME and other.figure == row.figure), None)
    if peer is None or not row.store.startswith("sqlite"):  # like with like
        return line
    ratio = row.median / peer.median if row.better == "higher" else peer.median / row.median
    return f"{line}   {ratio:.1f} times {peers.NAME}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
    }


def main() -> None:
    chosen = options()
    RESULTS.mkdir(exist_ok=True)
    began = time.time()
    rows = run(chosen)
    about = machine()
    size = " of a tenth of the size" if chosen.quick else ""
    print(f"Python {about['python']}, SQLite {about['sqlite']}, {about['system']}: ", end="")
    print(f"medians of {chosen.runs} runs{size}, in {time.time() - began:.0f} s")
    print(*table(rows), sep="\n")
    path: Path = chosen.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps({**about, "rows": [row._asdict() for row in rows]}, indent=1))
    print(f"\nThe figures are in {path}")


if __name__ == "__main__":
    main()
