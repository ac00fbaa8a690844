"""`python -m benchmarks`: run the workloads, print the table, keep the figures as JSON.

Each run of a workload is a process of its own; the runs of all workloads are interleaved, so that a noisy minute of the
machine does not hit one of them alone. The table shows the median, and the least and the greatest.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks import machine, peers
from benchmarks.child import WORKLOADS
from benchmarks.measure import Figure
from benchmarks.server import database, server
from benchmarks.stores import KINDS
from benchmarks.table import Row, table

RESULTS = Path(__file__).parent / "results"
"""Ignored by git: figures of one machine say little about another."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Derecho on this machine.")
    usual = ",".join(name for name, workload in WORKLOADS.items() if workload.default)
    parser.add_argument("--runs", type=int, help="runs of each workload, of which the median counts (default 3)")
    parser.add_argument("--only", default=usual, help=f"workloads, such as W1,W4 (default {usual})")
    parser.add_argument("--stores", default=",".join(KINDS), help="stores, such as sqlite,postgres (default all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, once: does everything still work?")
    parser.add_argument("--scale", type=float, help="another size than 1, or than the tenth of --quick")
    parser.add_argument("--peers", action="store_true", help="measure DBOS Transact beside it (see make bench-peers)")
    parser.add_argument("--postgres", metavar="URL", help="a server that runs already (default: one of our own)")
    parser.add_argument("--json", type=Path, help="where the figures go (default: a file in benchmarks/results)")
    chosen = parser.parse_args()
    chosen.runs = chosen.runs or (1 if chosen.quick else 3)
    chosen.scale = chosen.scale or (0.1 if chosen.quick else 1.0)
    chosen.only, chosen.stores = chosen.only.split(","), chosen.stores.split(",")
    unknown = [name for name in chosen.only if name not in WORKLOADS] + [s for s in chosen.stores if s not in KINDS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; workloads: {', '.join(WORKLOADS)}; stores: {', '.join(KINDS)}")
    if chosen.peers and not peers.PYTHON.exists():
        parser.error("the peers are not installed: run make bench-peers first")
    return chosen


class Run:
    """All measurements of one call, on one server."""

    def __init__(self, chosen: argparse.Namespace, server_url: str) -> None:
        self._chosen = chosen
        self.server_url = server_url
        self.rows: dict[tuple[str, str, str], Row] = {}

    def all(self) -> list[Row]:
        for number in range(1, self._chosen.runs + 1):
            for workload in self._chosen.only:
                for store in self._chosen.stores:
                    if store in WORKLOADS[workload].stores:
                        self._both(workload, store, f"run {number} of {self._chosen.runs}")
        _progress("")
        order = list(WORKLOADS)
        return sorted(self.rows.values(), key=lambda row: order.index(row.workload))

    def _both(self, workload: str, store: str, where: str) -> None:
        """Derecho, and the peer beside it."""
        self._measure(workload, store, where)
        peer = peers.BESIDE.get(store)
        if self._chosen.peers and peer is not None and workload in peers.WORKLOADS:
            _progress(f"{where}: {workload} on {peer}")
            with self._url(store) as url:
                figures = peers.measure(workload, store, self._chosen.scale, url)
            self._add(workload, peer, KINDS[store].durability, figures)

    def _measure(self, workload: str, store: str, where: str) -> None:
        _progress(f"{where}: {workload} on {store}")
        with self._url(store) as url:
            command = [sys.executable, "-m", "benchmarks.child", workload, store, str(self._chosen.scale), url]
            done = subprocess.run(command, cwd=RESULTS.parents[1], stdout=subprocess.PIPE, check=True, timeout=1800)
        figures = msgspec.json.decode(done.stdout, type=list[Figure])
        self._add(workload, store, KINDS[store].durability, figures)

    def _url(self, store: str) -> contextlib.AbstractContextManager[str]:
        return database(self.server_url) if KINDS[store].is_postgres else contextlib.nullcontext("")

    def _add(self, workload: str, store: str, durability: str, figures: list[Figure]) -> None:
        for figure in figures:
            row = self.rows.setdefault(
                (workload, figure.name, store),
                Row(workload, store, durability, figure.name, figure.unit, figure.better, []),
            )
            row.values.append(figure.value)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def measured(chosen: argparse.Namespace) -> Iterator[Run]:
    if any(KINDS[store].is_postgres for store in chosen.stores):
        with server(chosen.postgres) as url:
            yield Run(chosen, url)
    else:
        yield Run(chosen, "")


def main() -> None:
    chosen = options()
    RESULTS.mkdir(exist_ok=True)
    began, about = time.time(), machine.describe(RESULTS)
    with measured(chosen) as run:
        about |= machine.of_server(run.server_url)
        rows = run.all()
    size = f" at {chosen.scale:g} of the size" if chosen.scale != 1 else ""
    print("\n".join(f"{what}: {value}" for what, value in about.items()))
    print(f"medians of {chosen.runs} runs{size}, in {time.time() - began:.0f} s, then the least and the greatest")
    print(*table(rows), sep="\n")
    path: Path = chosen.json or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    settings = {"command": " ".join(sys.argv[1:]), "runs": chosen.runs, "scale": chosen.scale}
    path.write_text(json.dumps({**about, **settings, "rows": [row._asdict() for row in rows]}, indent=1))
    print(f"\nThe figures are in {path}")


if __name__ == "__main__":
    main()
