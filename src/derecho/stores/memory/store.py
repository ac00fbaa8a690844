"""The memory store: the `Store` protocol over `Tables`, one short lock around each call."""

import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import islice
from typing import Any

from msgspec.structs import replace

from derecho.clock import FOREVER, Clock, SystemClock
from derecho.errors import StoreError
from derecho.journal import model
from derecho.journal.changes import Result, Transition
from derecho.journal.deadlines import claimed
from derecho.journal.store import DueTimers, Overdue, Pending, Taken
from derecho.journal.wire import HistoryRow
from derecho.stores.hints import Hints
from derecho.stores.memory.changes import apply
from derecho.stores.memory.queue import first, take
from derecho.stores.memory.tables import Tables
from derecho.stores.transitions import unfit


class MemoryStore:
    """Everything in dicts: gone with the process, and as fast as Python allows.

    Safe to share between engines, event loops and threads of one process.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._hints = Hints()
        self._tables = Tables(self._hints.horizon)
        self._last = 0
        self._clock.subscribe(self._hints.bump)

    @property
    def url(self) -> str:
        return "memory:"

    def now(self) -> int:
        with self._lock:
            now = self._clock.now()
            if now > self._last:
                self._last = now
            return self._last

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of; what is stored stays as long as the store itself."""

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        with self._lock:
            tables = self._tables
            tables.now = self.now()
            tables.touched.clear()
            tables.undo.clear()
            try:
                results = [unfit(transition) or apply(tables, transition) for transition in transitions]
            except BaseException:
                tables.roll_back()
                raise
            touched = tuple(tables.touched)
        self._hints.bump(touched)
        return results

    async def transact(self, work: Callable[[Any], Awaitable[Transition]]) -> Result:
        raise StoreError(f"a transaction needs a database for your rows, and this is {_NO_DATABASE}")

    async def commit_within(self, connection: Any, transition: Transition) -> Result:
        raise StoreError(f"there is no transaction to write in: this is {_NO_DATABASE}")

    # --- claims and looks ---------------------------------------------------------------------------------------------

    async def claim_runs(
        self, worker: str, claims: Sequence[str], types: Collection[str], suspects: int = 1
    ) -> Taken[model.ClaimedRun]:
        with self._lock:
            tables, taken = self._tables, list[model.ClaimedRun]()
            queues = [queue[kind] for queue in (tables.ready, tables.suspects) for kind in types if kind in queue]
            is_doomed = any(tables.runs[run_id].claim is None for run_id in tables.terminate)
            first_at = 0 if is_doomed else first(queues)
            if worker not in tables.workers:
                return Taken([], first_at)  # nobody would notice its death
            for claim, run_id in zip(claims, self._claimable(types, len(claims), suspects), strict=False):
                run = replace(tables.runs[run_id], claim=claim, worker=worker, ready_at=model.CLAIMED)
                tables.runs[run_id] = run
                taken.append(model.ClaimedRun(run, self._messages(run_id)))
            return Taken(taken, first_at)

    def _claimable(self, types: Collection[str], limit: int, suspects: int) -> list[str]:
        """Run ids: those to be terminated, then the longest ready; all taken from the queues."""
        tables, now = self._tables, self.now()
        doomed = sorted(run_id for run_id in tables.terminate if tables.runs[run_id].claim is None)[:limit]
        limit -= len(doomed)
        found = [
            (entry, queues)
            for queues, most in ((tables.ready, limit), (tables.suspects, min(limit, suspects)))
            for entry in take([queues[name] for name in set(types) if name in queues], now, most)
            if entry[1] not in doomed
        ]
        found.sort(key=lambda item: item[0])
        for (at, run_id), queues in found[limit:]:
            queues[tables.runs[run_id].kind].add(at, run_id)
        return doomed + [run_id for (_, run_id), _ in found[:limit]]

    async def claim_activities(
        self, worker: str, claims: Sequence[str], names: Collection[str], queues: Collection[str]
    ) -> Taken[model.ActivityRow]:
        with self._lock:
            tables, now, taken = self._tables, self.now(), list[model.ActivityRow]()
            kinds = [(queue, name) for queue in set(queues) for name in set(names)]
            due = [tables.due[kind] for kind in kinds if kind in tables.due]
            first_at = first(due)
            if worker not in tables.workers:
                return Taken([], first_at)
            tables.touched.clear()
            for claim, (_, (run_id, activity)) in zip(claims, take(due, now, len(claims)), strict=False):
                row = claimed(tables.activities[run_id][activity], claim, worker, now)
                tables.activities[run_id][activity] = row
                tables.watch_deadline(row)
                taken.append(row)
            touched = tuple(tables.touched)
        self._hints.bump(touched)
        return Taken(taken, first_at)

    async def attempts(self, places: Sequence[tuple[str, int]]) -> list[model.AttemptState]:
        with self._lock:
            rows = [row for place in places if (row := self._tables.activity(place)) is not None]
            return [model.AttemptState(row.run_id, row.activity, row.claim, row.cancel_requested) for row in rows]

    async def due_timers(self, limit: int) -> DueTimers:
        with self._lock:
            tables = self._tables
            places, next_at = tables.timer_queue.look(self.now(), limit)
            tables.horizon["timers"] = FOREVER if next_at is None else next_at
            return DueTimers([tables.timers[run_id][timer] for run_id, timer in places], next_at)

    async def overdue(self, limit: int) -> Overdue:
        with self._lock:
            tables, now = self._tables, self.now()
            lost = sorted(tables.lost)[:limit]
            places, next_at = tables.timeout_queue.look(now, limit - len(lost))
            rows = [model.OverdueActivity(tables.activities[run][number], lost=True) for run, number in lost]
            rows += [model.OverdueActivity(tables.activities[run][number], lost=False) for run, number in places]
            leases = sorted((row.lease_until, row.worker) for row in tables.workers.values())
            dead = [tables.workers[worker] for lease_until, worker in leases if lease_until <= now]
            instants = [lease_until for lease_until, _ in leases if lease_until > now]
            if next_at is not None:
                instants.append(next_at)
            next_at = now if len(tables.lost) > len(lost) else min(instants, default=None)
            tables.horizon["timeouts"] = FOREVER if next_at is None else next_at
            return Overdue(rows, dead, next_at)

    # --- reads --------------------------------------------------------------------------------------------------------

    async def load(self, run_ids: Collection[str]) -> dict[str, list[HistoryRow]]:
        with self._lock:
            histories = {run_id: self._tables.history.get(run_id, {}) for run_id in run_ids}
            return {run_id: [rows[task] for task in sorted(rows)] for run_id, rows in histories.items()}

    async def get_run(self, run_id: str) -> model.RunRow | None:
        return self._tables.runs.get(run_id)

    async def find_run(self, workflow_id: str) -> model.RunRow | None:
        with self._lock:
            return self._tables.newest_run(workflow_id)

    async def closed(self, run_ids: Collection[str]) -> list[model.RunRow]:
        with self._lock:
            found = [self._tables.runs.get(run_id) for run_id in run_ids]
            return [run for run in found if run is not None and not run.is_open]

    async def children(self, run_id: str) -> list[model.RunRow]:
        with self._lock:
            return [self._tables.runs[child] for child in sorted(self._tables.children.get(run_id, ()))]

    async def pending(self, run_id: str) -> Pending:
        with self._lock:
            activities = self._tables.activities.get(run_id, {})
            timers = self._tables.timers.get(run_id, {})
            return Pending(
                [activities[number] for number in sorted(activities)],
                [timers[number] for number in sorted(timers)],
                self._messages(run_id),
            )

    def _messages(self, run_id: str) -> list[model.Message]:
        inbox = self._tables.inbox.get(run_id, {})
        return [model.Message(number, inbox[number]) for number in sorted(inbox)]

    async def list_runs(self, where: model.RunFilter) -> list[model.RunRow]:
        with self._lock:
            newest_first = sorted(self._tables.listing, reverse=True)
            if where.before is not None:
                newest_first = [place for place in newest_first if place < where.before]
            fitting = (run for _, run_id in newest_first if _fits(run := self._tables.runs[run_id], where))
            return list(islice(fitting, max(0, where.limit)))

    async def workers(self) -> list[model.WorkerRow]:
        with self._lock:
            now = self.now()
            return [row for _, row in sorted(self._tables.workers.items()) if row.lease_until > now]

    # --- hints --------------------------------------------------------------------------------------------------------

    def seen(self, topic: model.Topic) -> int:
        return self._hints.seen(topic)

    def hint(self, topic: model.Topic) -> None:
        self._hints.bump((topic,))

    async def wait(self, topic: model.Topic, seen: int, timeout: float) -> None:
        await self._hints.wait(topic, seen, timeout)


_NO_DATABASE = "a MemoryStore, which has none. Use SQLiteStore"


def _fits(run: model.RunRow, where: model.RunFilter) -> bool:
    return (
        (where.workflow_type is None or run.workflow_type == where.workflow_type)
        and (where.status is None or run.status == where.status)
        and (where.workflow_id is None or run.workflow_id == where.workflow_id)
    )
