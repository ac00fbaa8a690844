"""Reads that decide nothing, on the reading connection."""

import json
import sqlite3
from collections.abc import Collection, Sequence

from derecho.clock import FOREVER
from derecho.journal.model import AttemptState, Message, RunFilter, RunRow, TimerRow, WorkerRow
from derecho.journal.store import Pending
from derecho.journal.wire import HistoryRow
from derecho.stores.sql import load as load_sql
from derecho.stores.sqlite.rows import activity_row, run_row, worker_row
from derecho.stores.transitions import can_be_stored

_SQL = load_sql("sqlite/reads")


def load(connection: sqlite3.Connection, run_ids: Sequence[str]) -> dict[str, list[HistoryRow]]:
    """A statement for each run: here a statement costs next to nothing, what costs is the way to this thread."""
    found: dict[str, list[HistoryRow]] = {run_id: [] for run_id in run_ids}
    for run_id in filter(can_be_stored, found):
        found[run_id] = [HistoryRow(*row) for row in connection.execute(_SQL["load"], (run_id,))]
    return found


def get_run(connection: sqlite3.Connection, run_id: str) -> RunRow | None:
    return _first(connection, "get_run", run_id)


def find_run(connection: sqlite3.Connection, workflow_id: str) -> RunRow | None:
    return _first(connection, "find_run", workflow_id)


def _first(connection: sqlite3.Connection, statement: str, key: str) -> RunRow | None:
    row = connection.execute(_SQL[statement], (key,)).fetchone()
    return None if row is None else run_row(row)


def closed(connection: sqlite3.Connection, run_ids: Collection[str]) -> list[RunRow]:
    return [run_row(row) for row in connection.execute(_SQL["closed"], (json.dumps(list(run_ids)),))]


def children(connection: sqlite3.Connection, run_id: str) -> list[RunRow]:
    return [run_row(row) for row in connection.execute(_SQL["children"], (run_id,))]


def pending(connection: sqlite3.Connection, run_id: str) -> Pending:
    """Three queries in one transaction, so that they see the same instant."""
    connection.execute("BEGIN")
    try:
        return Pending(
            [activity_row(row) for row in connection.execute(_SQL["activities"], (run_id,))],
            [TimerRow(*row) for row in connection.execute(_SQL["timers"], (run_id,))],
            [Message(*row) for row in connection.execute(_SQL["messages"], (run_id,))],
        )
    finally:
        connection.execute("ROLLBACK")


def attempts(connection: sqlite3.Connection, places: Sequence[tuple[str, int]]) -> list[AttemptState]:
    found = connection.execute(_SQL["attempts"], (json.dumps(places),))
    return [
        AttemptState(run_id, activity, claim, bool(cancel_requested))
        for run_id, activity, claim, cancel_requested in found
    ]


def list_runs(connection: sqlite3.Connection, where: RunFilter) -> list[RunRow]:
    """A statement for each index; the rest of the filter narrows what the index finds."""
    page = (*(where.before or (FOREVER, "")), max(0, where.limit))
    match where:
        case RunFilter(workflow_id=str(workflow_id)):
            found = connection.execute(
                _SQL["list_of_workflow"], (workflow_id, where.status, where.workflow_type, *page)
            )
        case RunFilter(status=str(status)):
            found = connection.execute(_SQL["list_by_status"], (status, where.workflow_type, *page))
        case RunFilter(workflow_type=str(workflow_type)):
            found = connection.execute(_SQL["list_by_type"], (workflow_type, *page))
        case _:
            found = connection.execute(_SQL["list_runs"], page)
    return [run_row(row) for row in found]


def workers(connection: sqlite3.Connection, now: int) -> list[WorkerRow]:
    return [worker_row(row) for row in connection.execute(_SQL["live_workers"], (now,))]
