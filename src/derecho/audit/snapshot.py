"""All rows of a store at one instant, as the auditor reads them."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derecho.audit.story import Story
from derecho.journal.model import ActivityRow, Message, RunFilter, RunRow, TimerRow
from derecho.journal.store import Store
from derecho.journal.wire import HistoryRow
from derecho.stores.memory import MemoryStore
from derecho.stores.sql import load
from derecho.stores.sqlite import SQLiteStore
from derecho.stores.sqlite.rows import activity_row, run_row

if TYPE_CHECKING:
    from derecho.stores.postgres import PostgresStore

_HERE = Path(__file__).parent
_ALL = 1_000_000_000


class Snapshot:
    """Rows by run id, each list in order. `lost`: activities that are marked as held by the dead.

    `strays`: run ids whose rows in several tables do not fit. `keys` is empty for a store that cannot show them.
    """

    def __init__(self) -> None:
        self.runs: dict[str, RunRow] = {}
        self.history: dict[str, list[HistoryRow]] = defaultdict(list)
        self.inbox: dict[str, list[Message]] = defaultdict(list)
        self.activities: dict[str, list[ActivityRow]] = defaultdict(list)
        self.timers: dict[str, list[TimerRow]] = defaultdict(list)
        self.keys: dict[str, set[str]] = defaultdict(set)
        self.workers: set[str] = set()
        self.lost: set[tuple[str, int]] = set()
        self.strays: set[str] = set()
        self._stories: dict[str, Story] = {}

    def story(self, run_id: str) -> Story:
        """What a run's history and inbox say; read once."""
        found = self._stories.get(run_id)
        if found is None:
            found = self._stories[run_id] = Story(self.history.get(run_id, ()), self.inbox.get(run_id, ()))
        return found


async def look(store: Store) -> Snapshot:
    """Read everything."""
    if isinstance(store, MemoryStore):
        return of_memory(store)
    if isinstance(store, SQLiteStore):
        return await store._read(_of_sqlite, Snapshot())
    if store.url.startswith("postgres") and hasattr(store, "_connections"):
        return await _of_postgres(store)  # type: ignore[arg-type]  # not imported: its driver is an extra
    return await _of_protocol(store)


def of_memory(store: MemoryStore, run_ids: Iterable[str] | None = None) -> Snapshot:
    """Everything, or what there is about a few runs."""
    with store._lock:
        tables, snapshot = store._tables, Snapshot()
        wanted = (
            set(tables.runs) | set(tables.history) | set(tables.inbox) | set(tables.activities) | set(tables.timers)
        )
        for run_id in sorted(wanted if run_ids is None else run_ids):
            if run_id in tables.runs:
                snapshot.runs[run_id] = tables.runs[run_id]
            _put(snapshot.history, run_id, tables.history.get(run_id, {}))
            _put(snapshot.activities, run_id, tables.activities.get(run_id, {}))
            _put(snapshot.timers, run_id, tables.timers.get(run_id, {}))
            inbox = tables.inbox.get(run_id, {})
            _put(snapshot.inbox, run_id, {number: Message(number, data) for number, data in inbox.items()})
        snapshot.keys.update((chain, set(keys)) for chain, keys in tables.keys.items() if keys)
        snapshot.workers, snapshot.lost = set(tables.workers), set(tables.lost)
        return snapshot


def _put(table: dict[str, list[Any]], run_id: str, rows: dict[int, Any]) -> None:
    if rows:
        table[run_id] = [rows[number] for number in sorted(rows)]


def _of_sqlite(connection: sqlite3.Connection) -> Snapshot:
    snapshot, sql = Snapshot(), load(str(_HERE / "sqlite"))
    connection.execute("BEGIN")
    try:
        found = {name: connection.execute(text).fetchall() for name, text in sql.items()}
    finally:
        connection.execute("ROLLBACK")
    snapshot.runs = {run.run_id: run for run in map(run_row, found["runs"])}
    for row in found["activities"]:
        activity = activity_row(row)
        snapshot.activities[activity.run_id].append(activity)
        if row[0]:
            snapshot.lost.add((activity.run_id, activity.activity))
    return _fill(snapshot, found)


def _fill(snapshot: Snapshot, found: dict[str, list[Any]]) -> Snapshot:
    """The tables that look the same in both databases."""
    for run_id, *row in found["history"]:
        snapshot.history[run_id].append(HistoryRow(*row))
    for run_id, number, data in found["inbox"]:
        snapshot.inbox[run_id].append(Message(number, data))
    for run_id, timer, fire_at in found["timers"]:
        snapshot.timers[run_id].append(TimerRow(run_id, timer, fire_at))
    for chain_id, key in found["keys"]:
        snapshot.keys[chain_id].add(key)
    snapshot.workers = {worker for (worker,) in found["workers"]}
    return snapshot


async def _of_postgres(store: "PostgresStore") -> Snapshot:
    snapshot, address = Snapshot(), store._address
    sql = {name: address.in_schema(text) for name, text in load(str(_HERE / "postgres"), "$").items()}

    async def job(link: Any) -> dict[str, list[Any]]:
        async with link.connection.transaction(isolation="repeatable_read", readonly=True):
            return {name: await link.connection.fetch(text) for name, text in sql.items()}

    found = await store._run(job)
    fields, width = len(RunRow.__struct_fields__), len(ActivityRow.__struct_fields__)
    snapshot.runs = {run.run_id: run for run in (RunRow(*row[:fields]) for row in found["runs"])}
    for row in found["activities"]:
        activity = ActivityRow(*row[:width])
        snapshot.activities[activity.run_id].append(activity)
        if row["lost"]:
            snapshot.lost.add((activity.run_id, activity.activity))
    snapshot.strays = {run_id for (run_id,) in found["strays"]}
    return _fill(snapshot, found)


async def _of_protocol(store: Store) -> Snapshot:
    """What any store tells: no rows that belong to no run, and no keys."""
    snapshot, before = Snapshot(), None
    while page := await store.list_runs(RunFilter(before=before)):
        before = (page[-1].started_at, page[-1].run_id)
        snapshot.history.update(await store.load([run.run_id for run in page]))
        for run in page:
            snapshot.runs[run.run_id] = run
            pending = await store.pending(run.run_id)
            snapshot.activities[run.run_id] = pending.activities
            snapshot.timers[run.run_id] = pending.timers
            snapshot.inbox[run.run_id] = pending.messages
    overdue = await store.overdue(_ALL)
    snapshot.workers = {row.worker for row in (*await store.workers(), *overdue.dead)}
    snapshot.lost = {(item.row.run_id, item.row.activity) for item in overdue.activities if item.lost}
    return snapshot
