"""The activity worker: claim an activity, run an attempt, commit its outcome, or let it go.

An activity that a turn of this engine schedules is committed already claimed when a slot is free (`reserve`), and
starts when that commit is known: no claim round trip. Its result goes to the run as a direct fact when the run is warm
here.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from derecho.activity import CancelReason
from derecho.engine.attempts import Attempt, decode_command, log_failure
from derecho.engine.runs import PendingFact
from derecho.errors import PayloadError
from derecho.journal import events as ev
from derecho.journal.changes import Change, RetryActivity
from derecho.journal.deadlines import running_until
from derecho.journal.failures import to_failure
from derecho.journal.model import ActivityRow

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

log = logging.getLogger("derecho.engine")


class Reservation:
    """Slots taken for activities whose commit is under way; `rows` are what to commit for all of them."""

    __slots__ = ("_attempts", "_worker", "rows")

    def __init__(self, worker: "ActivityWorker", rows: list[ActivityRow], attempts: list[Attempt]) -> None:
        self._worker = worker
        self._attempts = attempts
        self.rows = rows

    def start(self) -> None:
        for attempt in self._attempts:
            self._worker.start(attempt)

    def give_back(self) -> None:
        self._worker.release(len(self._attempts))


class ActivityWorker:
    """Attempts under way in this engine, at most `slots` of them."""

    def __init__(self, engine: "Engine", slots: int, resources: Mapping[type[Any], Any]) -> None:
        self._engine = engine
        self._free = slots
        self._slots = slots
        self._resources = dict(resources)
        self._running: dict[tuple[str, int], Attempt] = {}
        self._slot_free = asyncio.Event()
        self._pool = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="derecho-activity")
        self.draining = False

    def __len__(self) -> int:
        return len(self._running)

    def reserve(self, scheduled: Sequence[tuple[ActivityRow, ev.ActivityScheduled]]) -> Reservation:
        """Claim what can start here at once; the rest is committed unclaimed, for whoever comes first."""
        rows, attempts = [], []
        registered = self._engine.registry.activities
        for row, command in scheduled:
            definition = registered.get(row.name)
            if definition is None or self._free <= 0 or self.draining:
                rows.append(row)
                continue
            self._free -= 1
            at = row.scheduled_at
            row = replace(
                row,
                claim=self._engine.new_claim(),
                worker=self._engine.incarnation,
                started_at=at,
                timeout_at=running_until(command, at, at, at),
            )
            rows.append(row)
            attempts.append(Attempt(row, command, definition, self._resources))
        return Reservation(self, rows, attempts)

    async def work(self) -> None:
        """Claim due activities while there are slots, for ever."""
        engine = self._engine
        while True:
            if self._free <= 0:
                self._slot_free.clear()
                await self._slot_free.wait()
                continue
            mark = engine.store.seen("activities")
            asked = min(self._free, self._slots)
            self._free -= asked
            tokens = [engine.new_claim() for _ in range(asked)]
            names = list(engine.registry.activities)
            rows: list[ActivityRow] = []
            try:
                if names:
                    claim = partial(engine.store.claim_activities, engine.incarnation, tokens, names)
                    rows = await engine.persist(claim, "claim activities")
            finally:
                self.release(asked - len(rows))
            for row in rows:
                self._claimed(row)
            if len(rows) < asked:
                await engine.store.wait("activities", mark, engine.poll_interval)

    def _claimed(self, row: ActivityRow) -> None:
        definition = self._engine.registry.activities[row.name]
        try:
            command = decode_command(row)
        except PayloadError as exc:
            log.exception("activity %r of run %s cannot be read", row.name, row.run_id)
            self.release(1)
            fact = ev.ActivityFailed(row.activity, to_failure(exc, retryable=False), self._engine.store.now())
            attempt = Attempt(row, ev.ActivityScheduled(row.name), definition, self._resources)
            self._end(attempt, fact, attempt.cancelled(0)[1])
            return
        self.start(Attempt(row, command, definition, self._resources))

    def start(self, attempt: Attempt) -> None:
        key = (attempt.row.run_id, attempt.row.activity)
        self._running[key] = attempt
        attempt.task = asyncio.get_running_loop().create_task(self._attempt(attempt))

    async def _attempt(self, attempt: Attempt) -> None:
        engine, row = self._engine, attempt.row
        fact: ev.Fact | None = None
        change: Change | None = None
        try:
            result = await attempt.run(engine.converter, self._pool)
            fact, change = attempt.completed(result, engine.store.now(), engine.worker_id)
        except asyncio.CancelledError:
            if attempt.reason == "requested":
                fact, change = attempt.cancelled(engine.store.now())
            # lost, timed out or handed back: whoever took it away writes what there is to write
        except Exception as exc:
            fact, change = attempt.failed(exc, engine.store.now(), engine.worker_id)
            log_failure(attempt, exc, due=fact is None)
        finally:
            self._running.pop((row.run_id, row.activity), None)
            self.release(1)
        if change is not None:
            self._end(attempt, fact, change)

    def _end(self, attempt: Attempt, fact: ev.Fact | None, change: Change) -> None:
        engine, row = self._engine, attempt.row
        if fact is None:
            engine.submit((change,), lambda _: None)
            if isinstance(change, RetryActivity):
                engine.wake_at("activities", change.due_at)
        elif row.attempt > 1:
            # After an attempt that may have died with its process, the result is made durable before any workflow
            # code sees it: a run whose code kills the process must not cost the activity another attempt each time.
            engine.workflows.deliver_direct(row.run_id, PendingFact(fact, 0, change))
        else:
            engine.workflows.direct(row.run_id, fact, change)

    def cancel(self, run_id: str, activity: int | None = None, reason: CancelReason = "requested") -> None:
        """Stop the attempt of one activity, or all of a run's, if they run here."""
        if activity is not None:
            attempt = self._running.get((run_id, activity))
            if attempt is not None:
                attempt.cancel(reason)
            return
        for (running, _), attempt in list(self._running.items()):
            if running == run_id:
                attempt.cancel("lost")

    def abandon_all(self) -> None:
        """All claims are gone: stop the attempts, their rows are others' to judge."""
        for attempt in list(self._running.values()):
            attempt.cancel("lost")

    def look_again(self) -> None:
        """An activity became due that the store gave no hint of."""
        self._engine.store.hint("activities")

    def release(self, slots: int) -> None:
        self._free += slots
        if self._free > 0:
            self._slot_free.set()

    async def drain(self, timeout: float) -> None:
        """Let attempts end by themselves for a while, then stop them; their rows go back with the worker's lease."""
        tasks = [attempt.task for attempt in self._running.values() if attempt.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
        left = list(self._running.values())
        for attempt in left:
            attempt.cancel("shutdown")
        stopping = [attempt.task for attempt in left if attempt.task is not None]
        if stopping:
            await asyncio.wait(stopping, timeout=1.0)
        self._pool.shutdown(wait=False, cancel_futures=True)
