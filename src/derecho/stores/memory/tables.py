"""The memory store's rows, and how a change that stops halfway is undone.

Rows are immutable; every effect is "put this row under that key", noted in `undo` with what was there before. Queues
are not undone: their entries are judged when they are met.
"""

from collections.abc import Hashable
from functools import partial
from typing import Any, TypeVar

from derecho.clock import FOREVER
from derecho.journal.model import ActivityRow, RunRow, TimerRow, Topic, WorkerRow
from derecho.journal.wire import HistoryRow
from derecho.stores.memory.queue import InstantQueue

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Place = tuple[str, int]
"""Run id and event id: where an activity or a timer belongs."""

_NOTHING: Any = object()


class Tables:
    """Everything that is kept. `now` is the instant of the commit under way, `touched` the topics it concerns."""

    def __init__(self, horizon: dict[str, int]) -> None:
        self.now = 0
        self.horizon = horizon  # see `Hints`
        self.touched: set[Topic] = set()
        self.soonest = {"timers": FOREVER, "timeouts": FOREVER}  # that was set, whatever the horizon
        self.undo: list[tuple[dict[Any, Any], Any, Any]] = []
        self.runs: dict[str, RunRow] = {}
        self.history: dict[str, dict[int, HistoryRow]] = {}
        self.inbox: dict[str, dict[int, str]] = {}
        self.keys: dict[str, dict[str, None]] = {}  # chain id -> keys of its messages
        self.activities: dict[str, dict[int, ActivityRow]] = {}
        self.timers: dict[str, dict[int, TimerRow]] = {}
        self.workers: dict[str, WorkerRow] = {}
        self.open_runs: dict[str, str] = {}  # workflow id -> run id
        self.newest: dict[str, str] = {}  # workflow id -> run id
        self.older: dict[str, str] = {}  # run id -> the run of its workflow id that was created before it
        self.listing: dict[tuple[int, str], None] = {}  # start and run id of all runs; see `store.list_runs`
        self.children: dict[str, dict[str, None]] = {}  # run id -> open runs that it started
        self.terminate: dict[str, None] = {}  # run ids
        self.lost: dict[Place, None] = {}  # activities of dead workers
        self.ready: dict[str, InstantQueue[str]] = {}  # by kind
        self.suspects: dict[str, InstantQueue[str]] = {}  # ready too, but a worker has died of them; by kind
        self.due: dict[tuple[str, str], InstantQueue[Place]] = {}  # by queue and activity name
        self.timer_queue: InstantQueue[Place] = InstantQueue(self._timer_holds)
        self.timeout_queue: InstantQueue[Place] = InstantQueue(self._timeout_holds)

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        self.undo.append((table, key, table.get(key, _NOTHING)))
        table[key] = value

    def drop(self, table: dict[K, V], key: K) -> None:
        if key in table:
            self.undo.append((table, key, table.pop(key)))

    def inner(self, table: dict[K, dict[Any, V]], key: K) -> dict[Any, V]:
        """The table inside a table, made if need be."""
        found = table.get(key)
        if found is None:
            found = {}
            self.put(table, key, found)
        return found

    def roll_back(self, mark: int = 0) -> None:
        """Undo everything behind `mark`, newest first."""
        for table, key, old in reversed(self.undo[mark:]):
            if old is _NOTHING:
                table.pop(key, None)
            else:
                table[key] = old
        del self.undo[mark:]

    # --- rows ---------------------------------------------------------------------------------------------------------

    def activity(self, place: Place) -> ActivityRow | None:
        of_run = self.activities.get(place[0])
        return None if of_run is None else of_run.get(place[1])

    def newest_run(self, workflow_id: str) -> RunRow | None:
        run_id = self.newest.get(workflow_id)
        return None if run_id is None else self.runs[run_id]

    def put_run(self, run: RunRow) -> None:
        """Store a run row and, when it is ready, queue it."""
        self.put(self.runs, run.run_id, run)
        if run.ready_at is not None and run.claim is None:
            queues, holds = (self.suspects, self._suspect_holds) if run.crashes else (self.ready, self._ready_holds)
            queue = queues.get(run.kind)
            if queue is None:
                queue = queues[run.kind] = InstantQueue(partial(holds, run.kind))
            queue.add(run.ready_at, run.run_id)
            self.touched.add("runs")

    def put_activity(self, row: ActivityRow) -> None:
        """Store an activity; queue it when it is unclaimed, and when it has a deadline."""
        place = (row.run_id, row.activity)
        self.put(self.inner(self.activities, row.run_id), row.activity, row)
        if row.claim is None:
            kind = (row.queue, row.name)
            queue = self.due.get(kind)
            if queue is None:
                queue = self.due[kind] = InstantQueue(partial(self._due_holds, kind))
            queue.add(row.due_at, place)
            self.touched.add("activities")
        self.watch_deadline(row)

    def watch_deadline(self, row: ActivityRow) -> None:
        if row.timeout_at is not None:
            self.timeout_queue.add(row.timeout_at, (row.run_id, row.activity))
            self.watch("timeouts", row.timeout_at)

    def watch(self, what: str, at: int) -> None:
        self.soonest[what] = min(at, self.soonest[what])
        if at < self.horizon[what]:
            self.touched.add("timers")

    # --- what queues ask ----------------------------------------------------------------------------------------------

    def _ready_holds(self, kind: str, at: int, run_id: str) -> bool:
        run = self.runs.get(run_id)
        return run is not None and _is_ready(run, kind, at) and not run.crashes

    def _suspect_holds(self, kind: str, at: int, run_id: str) -> bool:
        run = self.runs.get(run_id)
        return run is not None and _is_ready(run, kind, at) and run.crashes > 0

    def _due_holds(self, kind: tuple[str, str], at: int, place: Place) -> bool:
        row = self.activity(place)
        return row is not None and row.claim is None and row.due_at == at and (row.queue, row.name) == kind

    def _timer_holds(self, at: int, place: Place) -> bool:
        row = self.timers.get(place[0], {}).get(place[1])
        return row is not None and row.fire_at == at

    def _timeout_holds(self, at: int, place: Place) -> bool:
        row = self.activity(place)
        return row is not None and row.timeout_at == at and place not in self.lost


def _is_ready(run: RunRow, kind: str, at: int) -> bool:
    return run.ready_at == at and run.claim is None and run.kind == kind
