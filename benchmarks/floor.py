"""The floor: what the database costs by itself.

A bare loop on the same driver writes what a workload left behind: as many transactions, the same history rows, and for
each an update of its run's row. The distance to it is what Derecho adds: its other rows, its checks, its Python.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.measure import Figure, Setup
from derecho import Client, Workflow
from derecho.journal.wire import HistoryRow

_SCHEMA = """
CREATE TABLE runs (run_id TEXT PRIMARY KEY, tasks INTEGER, digest TEXT) WITHOUT ROWID;
CREATE TABLE history (run_id TEXT, task INTEGER, first_event INTEGER, at INTEGER, data TEXT, digest TEXT,
    PRIMARY KEY (run_id, task)) WITHOUT ROWID;
"""

Row = tuple[str, HistoryRow]


async def written_rows(client: Client, workflow: Workflow[[int], int]) -> list[Row]:
    """The history rows of all runs of a workflow, about in the order in which they were committed."""
    runs = [run.run_id async for run in client.list(workflow_type=workflow.name)]
    rows = [(run_id, row) for run_id in runs for row in await client.store.load(run_id)]
    return sorted(rows, key=lambda item: item[1].at)


def floor(setup: Setup, rows: Sequence[Row], commits: int) -> float | None:
    """Rows per second of the bare loop; None for a store that writes to no disk."""
    if setup.kind.synchronous is None:
        return None
    return _write(setup.directory / "floor.db", setup.kind.synchronous, rows, commits)


def _write(path: Path, synchronous: str, rows: Sequence[Row], commits: int) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO runs VALUES (?, 0, '')", {(run_id,) for run_id, _ in rows})
        connection.execute("COMMIT")
        size = max(1, round(len(rows) / commits))
        began = time.perf_counter()
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?)",
                [(run_id, row.task, row.first_event, row.at, row.data, row.digest) for run_id, row in batch],
            )
            connection.executemany(
                "UPDATE runs SET tasks = ?, digest = ? WHERE run_id = ?",
                [(row.task, row.digest, run_id) for run_id, row in batch],
            )
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - began)


async def distance(
    setup: Setup, client: Client, workflow: Workflow[[int], int], commits: int, rows_per_second: float
) -> list[Figure]:
    """The floor of a workload that wrote so many history rows a second, and how far above it that was."""
    bare = floor(setup, await written_rows(client, workflow), commits)
    if bare is None:
        return []
    return [
        Figure("floor: bare loop, history rows/s", bare, "1/s", "higher"),
        Figure("share of the floor", rows_per_second / bare * 100, "%", "higher"),
    ]
