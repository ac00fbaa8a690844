"""The floor: what the database costs by itself.

A bare loop on the same driver writes what a workload left behind: as many transactions, the same history rows, and for
each an update of its run's row. The distance to it is what Derecho adds: its other rows, its checks, its Python.
"""

import itertools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.measure import Figure, Setup
from derecho import Client, Workflow
from derecho.committer import Committer
from derecho.journal.wire import HistoryRow

Row = tuple[str, HistoryRow]

_SQLITE = """
CREATE TABLE runs (run_id TEXT PRIMARY KEY, tasks INTEGER, digest TEXT) WITHOUT ROWID;
CREATE TABLE history (run_id TEXT, task INTEGER, first_event INTEGER, at INTEGER, data TEXT, digest TEXT,
    PRIMARY KEY (run_id, task));
"""
_POSTGRES = """
CREATE SCHEMA floor;
CREATE TABLE floor.runs (run_id text COLLATE "C" PRIMARY KEY, tasks bigint, digest text) WITH (fillfactor = 60);
CREATE TABLE floor.history (run_id text COLLATE "C", task bigint, first_event bigint, at bigint, data text, digest text,
    PRIMARY KEY (run_id, task));
"""
_WRITE = """
WITH batch AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[])
        AS new (run_id, task, first_event, at, data, digest)
), updated AS (
    UPDATE floor.runs SET tasks = batch.task, digest = batch.digest FROM batch WHERE runs.run_id = batch.run_id
)
INSERT INTO floor.history SELECT * FROM batch
"""


class Meter:
    """Counts the commits of an engine from when it is made; `distance` is what they are compared with."""

    def __init__(self, setup: Setup, client: Client, committer: Committer) -> None:
        self._setup, self._client, self._committer = setup, client, committer
        self._before = committer.commits, committer.transitions
        self._began = client.store.now()

    async def figures(self, workflow: Workflow[[int], int], seconds: float) -> list[Figure]:
        """How large commits were, and how near the floor it came in so many seconds."""
        commits = self._committer.commits - self._before[0]
        transitions = self._committer.transitions - self._before[1]
        found = [Figure("transitions per commit", transitions / commits, "", "higher")]
        rows = [row for row in await written_rows(self._client, workflow) if row[1].at >= self._began]
        bare = await floor(self._setup, rows, commits)
        if bare is not None:
            found.append(Figure("floor: bare loop, ms per commit", bare / commits * 1e3, "ms"))
            found.append(Figure("floor: bare loop, history rows/s", len(rows) / bare, "1/s", "higher"))
            found.append(Figure("share of the floor", bare / seconds * 100, "%", "higher"))
        return found


async def written_rows(client: Client, workflow: Workflow[[int], int]) -> list[Row]:
    """The history rows of all runs of a workflow, about in the order in which they were committed."""
    runs = [run.run_id async for run in client.list(workflow_type=workflow.name)]
    rows = [(run_id, row) for run_id in runs for row in (await client.store.load([run_id]))[run_id]]
    return sorted(rows, key=lambda item: item[1].at)


async def floor(setup: Setup, rows: Sequence[Row], commits: int) -> float | None:
    """Seconds of the bare loop; None for a store that writes to no disk."""
    batches = list(_batches(rows, commits))
    if setup.kind.is_postgres:
        return await _write_postgres(setup.url, batches)
    if setup.kind.synchronous is None:
        return None
    return _write_sqlite(setup.directory / "floor.db", setup.kind.synchronous, batches)


def _batches(rows: Sequence[Row], commits: int) -> Iterator[Sequence[Row]]:
    """As many as there were commits, evenly filled."""
    edges = [round(len(rows) * number / commits) for number in range(commits + 1)]
    return (rows[start:end] for start, end in itertools.pairwise(edges))


def _write_sqlite(path: Path, synchronous: str, batches: Sequence[Sequence[Row]]) -> float:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.executescript(_SQLITE)
        connection.execute("BEGIN")
        run_ids = {run_id for batch in batches for run_id, _ in batch}
        connection.executemany("INSERT INTO runs VALUES (?, 0, '')", [(run_id,) for run_id in run_ids])
        connection.execute("COMMIT")
        began = time.perf_counter()
        for batch in batches:
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
        return time.perf_counter() - began


async def _write_postgres(url: str, batches: Sequence[Sequence[Row]]) -> float:
    import asyncpg  # the other stores are measured without it

    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_POSTGRES)
        run_ids = {run_id for batch in batches for run_id, _ in batch}
        await connection.execute("INSERT INTO floor.runs SELECT unnest($1::text[]), 0, ''", list(run_ids))
        began = time.perf_counter()
        for batch in batches:
            rows = [(run_id, row.task, row.first_event, row.at, row.data, row.digest) for run_id, row in batch]
            await connection.execute(_WRITE, *([row[column] for row in rows] for column in range(6)))
        return time.perf_counter() - began
    finally:
        await connection.close()
