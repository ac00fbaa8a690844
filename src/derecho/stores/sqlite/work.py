"""Handing out work in SQLite: claims, and looks that take nothing. All of it runs in the writer's thread.

Claims look first and only begin a transaction when there is something to take: an idle engine must not keep others from
writing.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from derecho.clock import FOREVER
from derecho.journal.deadlines import claimed
from derecho.journal.model import (
    CLAIMED,
    ActivityRow,
    ClaimedRun,
    Message,
    RunRow,
    TimerRow,
    type_and_version,
)
from derecho.journal.store import DueTimers, Overdue
from derecho.stores.sql import load
from derecho.stores.sqlite.rows import activity_row, run_row, worker_row
from derecho.stores.sqlite.transaction import Transaction

_SQL = load("sqlite/work")


def first_run(connection: sqlite3.Connection, types: Collection[str]) -> int | None:
    """When the first run that could be claimed is ready."""
    found = _claimable(connection, FOREVER, 1, types, 1)
    return (0 if found[0].terminate is not None else found[0].ready_at) if found else None


def first_activity(connection: sqlite3.Connection, names: Collection[str], queues: Collection[str]) -> int | None:
    """When the first activity that could be claimed is due."""
    found = _due_activities(connection, FOREVER, 1, names, queues)
    return found[0].due_at if found else None


def _claimable(
    connection: sqlite3.Connection, now: int, limit: int, types: Collection[str], suspects: int
) -> list[RunRow]:
    """Runs to be terminated, then the longest ready, at most `suspects` of them whose worker died with them."""
    doomed = [run_row(row) for row in connection.execute(_SQL["doomed_runs"], (limit,))]
    limit -= len(doomed)
    ready: list[RunRow] = []
    if limit > 0:
        taken = {run.run_id for run in doomed}
        wanted = json.dumps([type_and_version(kind) for kind in set(types)])
        for statement, most in (("ready_runs", limit), ("suspect_runs", min(limit, suspects))):
            found = connection.execute(_SQL[statement], (wanted, now, most)).fetchall() if most > 0 else []
            ready += [run for run in map(run_row, found) if run.run_id not in taken]
        ready.sort(key=lambda run: (run.ready_at, run.run_id))
    return doomed + ready[:limit]


def claim_runs(
    tx: Transaction, worker: str, claims: Sequence[str], types: Collection[str], suspects: int
) -> list[ClaimedRun]:
    if not tx.is_alive(worker):
        return []
    runs = _claimable(tx.connection, tx.now, len(claims), types, suspects)
    taken = []
    for claim, run in zip(claims, runs, strict=False):
        tx.execute(_SQL["claim_run"], (run.run_id, claim, worker, CLAIMED))
        found = tx.execute(_SQL["messages"], (run.run_id,))
        messages = [Message(number, data.decode("utf-8", "surrogateescape")) for number, data in found]
        taken.append(ClaimedRun(replace(run, claim=claim, worker=worker, ready_at=CLAIMED), messages))
    return taken


def _due_activities(
    connection: sqlite3.Connection, now: int, limit: int, names: Collection[str], queues: Collection[str]
) -> list[ActivityRow]:
    parameters = (json.dumps(list(set(queues))), json.dumps(list(set(names))), now, limit)
    return [activity_row(row) for row in connection.execute(_SQL["due_activities"], parameters)]


def claim_activities(
    tx: Transaction, worker: str, claims: Sequence[str], names: Collection[str], queues: Collection[str]
) -> list[ActivityRow]:
    if not tx.is_alive(worker):
        return []
    taken = []
    for claim, row in zip(claims, _due_activities(tx.connection, tx.now, len(claims), names, queues), strict=False):
        mine = claimed(row, claim, worker, tx.now)
        tx.execute(_SQL["claim_activity"], (row.run_id, row.activity, claim, worker, mine.started_at, mine.timeout_at))
        tx.watch_deadline(mine.timeout_at)
        taken.append(mine)
    return taken


def due_timers(connection: sqlite3.Connection, now: int, limit: int) -> DueTimers:
    rows = [TimerRow(*row) for row in connection.execute(_SQL["first_timers"], (now, limit + 1))]
    due = [row for row in rows[:limit] if row.fire_at <= now]
    return DueTimers(due, rows[len(due)].fire_at if len(rows) > len(due) else None)


def overdue(connection: sqlite3.Connection, now: int, limit: int) -> Overdue:
    lost = [activity_row(row) for row in connection.execute(_SQL["lost_activities"], (limit + 1,))]
    timeouts = [activity_row(row) for row in connection.execute(_SQL["first_timeouts"], (now, limit + 1))]
    workers = [worker_row(row) for row in connection.execute(_SQL["all_workers"])]
    return Overdue.of(lost, timeouts, workers, now, limit)
