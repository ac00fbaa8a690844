"""The table: for each workload the figures of all stores, with the peer beside the store that is like its own."""

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.child import WORKLOADS
from benchmarks.peers import BESIDE


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


def table(rows: list[Row]) -> Iterator[str]:
    for workload in dict.fromkeys(row.workload for row in rows):
        mine = [row for row in rows if row.workload == workload]
        yield f"\n{workload}  {WORKLOADS[workload].title}"
        for figure in dict.fromkeys(row.figure for row in mine):
            for row in mine:
                if row.figure == figure:
                    yield _line(row, mine)


def _line(row: Row, others: list[Row]) -> str:
    spread = f"{_number(min(row.values))} … {_number(max(row.values))}"
    line = (
        f"  {row.figure:<49} {row.store:<14} {row.durability:<28} {_number(row.median):>9} {row.unit:<4} {spread:>17}"
    )
    beside = BESIDE.get(row.store)
    peer = next((other for other in others if other.store == beside and other.figure == row.figure), None)
    if peer is None:
        return line
    ratio = row.median / peer.median if row.better == "higher" else peer.median / row.median
    return f"{line}   {ratio:.1f} times {peer.store}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
