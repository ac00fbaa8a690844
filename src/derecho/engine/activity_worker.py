"""The activity worker: claim an activity, run an attempt, commit its outcome, or let it go.

An activity that a turn of this engine schedules is committed already claimed when a slot is free or will soon be
(`reserve`), and starts when that commit is known: no claim round trip. If it then finds no slot it waits in line, and
when the line does not move in time it goes back to the store, unbegun. Its result goes to the run as a direct fact when
the run is warm here.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from derecho.activity import ActivityDefinition
from derecho.activity_context import CancelReason
from derecho.clock import FOREVER, SECOND
from derecho.engine import outcomes
from derecho.engine.attempts import Attempt, Overrun
from derecho.engine.heartbeats import Heartbeats
from derecho.engine.outcomes import Outcome
from derecho.engine.resources import Resources
from derecho.engine.runs import PendingFact, unused
from derecho.engine.slots import PATIENCE, Slots
from derecho.errors import PayloadError, ProcessDied
from derecho.executors.processes import Processes
from derecho.executors.threads import Threads
from derecho.journal import events as ev
from derecho.journal.changes import Change, Deliver, NewMessage, Receipt, Transition
from derecho.journal.deadlines import claimed
from derecho.journal.failures import to_failure
from derecho.journal.model import ActivityRow
from derecho.journal.policies import is_last
from derecho.journal.store import Taken
from derecho.journal.wire import encode_struct

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

log = logging.getLogger("derecho.engine")

_AT_ONCE = 1_000
"""Activities that are claimed from the store at once, at most."""


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
        for attempt in self._attempts:
            self._worker.slots.release(1, in_process=attempt.in_process)


class ActivityWorker:
    """Attempts under way in this engine, within its `slots`. All methods run on the engine's loop."""

    def __init__(self, engine: "Engine", slots: Slots, resources: Resources) -> None:
        self._engine = engine
        self.slots = slots
        self.resources = resources
        self.converter = engine.converter
        self.client = engine.client
        self.threads = Threads("derecho-activity")
        self.processes = Processes(engine.converter)
        self._watch_now = asyncio.Event()
        self.heartbeats = Heartbeats(engine, self._watch_now.set)
        self._running: dict[str, dict[str, Attempt]] = {}  # run id -> claim -> attempt
        self._line: deque[Attempt] = deque()  # of them those that wait for a slot, the first to come first
        self._line_watch: asyncio.TimerHandle | None = None
        self.draining = False

    def owns(self, row: ActivityRow) -> bool:
        return row.worker == self._engine.incarnation

    def is_late(self, row: ActivityRow) -> bool:
        """Whether an attempt that has not begun has run out of time."""
        return row.timeout_at is not None and self._engine.store.now() >= row.timeout_at

    def running(self) -> list[Attempt]:
        return [attempt for of_run in self._running.values() for attempt in of_run.values()]

    # --- beginnings --------------------------------------------------------------------------------------------------

    def reserve(self, scheduled: Sequence[tuple[ActivityRow, ev.ActivityScheduled]]) -> Reservation:
        """Claim what can start here at once; the rest is committed unclaimed, for whoever comes first."""
        rows, attempts = [], []
        engine = self._engine
        for row, command in scheduled:
            definition = engine.registry.activity(row.name, row.queue)
            if definition is None:
                engine.lookout.missed(row)
            elif not self.draining:
                in_process = definition.run_in == "process"
                # A promise dies with this process and costs an attempt, which must not be the only one.
                promised = not is_last(command.retry, row.attempt)
                if self.slots.room(in_process=in_process, promised=promised) > 0:
                    self.slots.take(1, in_process=in_process)
                    row = claimed(row, engine.new_claim(), engine.incarnation, row.scheduled_at, command)
                    attempts.append(Attempt(self, row, command, definition))
            rows.append(row)
        return Reservation(self, rows, attempts)

    async def work(self) -> None:
        """Claim due activities while there are slots, for ever."""
        engine = self._engine
        kinds = (False, True)
        while True:
            if self.slots.room(in_process=False) <= 0:
                await self.slots.changed()
                continue
            mark = engine.store.seen("activities")
            pause = min([await self._claim(in_process=in_process) for in_process in kinds])
            kinds = kinds[::-1]  # by turns, so that neither takes every slot that gets free
            if pause > 0.0:
                await engine.store.wait("activities", mark, pause)
            else:
                await asyncio.sleep(0)  # the shortest of those that were just begun end in this turn of the loop

    async def _claim(self, *, in_process: bool) -> float:
        """Claim for the free slots of one kind and start; seconds until it is time to look again."""
        engine, slots = self._engine, self.slots
        names = engine.registry.names(in_process=in_process)
        if not names:
            return engine.until()
        asked = min(slots.room(in_process=in_process), _AT_ONCE)
        if asked <= 0:
            slots.miss()
            return engine.until()
        tokens = [engine.new_claim() for _ in range(asked)]
        slots.take(asked, in_process=in_process)
        claim = partial(engine.store.claim_activities, engine.incarnation, tokens, names, engine.registry.queues())
        taken, asked_at = Taken[ActivityRow]([], None), engine.store.now()
        try:
            taken = await engine.persist(claim, "claim activities")
        finally:
            slots.release(asked - len(taken.rows), in_process=in_process)
        for row in taken.rows:
            if self.owns(row):
                self._claimed(row, engine.registry.activities[row.name])
            else:  # claimed while the lease was lost: it goes back unbegun
                slots.release(1, in_process=in_process)
                self._hand_back(row)
        return engine.until_next(taken, asked_at)

    def _hand_back(self, row: ActivityRow) -> None:
        """Make a claimed activity due again, its attempt not counted."""
        with suppress(PayloadError):
            self._engine.submit((outcomes.hand_back(row, self._engine.store.now()),), unused)

    def _claimed(self, row: ActivityRow, definition: ActivityDefinition) -> None:
        now = self._engine.store.now
        outcome: Outcome
        try:
            attempt = Attempt(self, row, outcomes.decode_command(row), definition)
        except PayloadError as exc:
            log.exception("activity %r of run %s cannot be read", row.name, row.run_id)
            fact = ev.ActivityFailed(row.activity, to_failure(exc, retryable=False), now())
            outcome = fact, outcomes.cancelled(row, now())[1]
        else:
            if not row.cancel_requested:
                self.start(attempt)
                return
            outcome = outcomes.cancelled(row, now(), "cancelled before its next attempt")
        self.slots.release(1, in_process=definition.run_in == "process")
        self._end(row, outcome)

    def start(self, attempt: Attempt) -> None:
        """Begin an attempt whose slot was taken, or let it wait until it can enter one.

        When the engine drains, nobody would wait for its end; after a lost lease it is not ours. Then it goes back
        unbegun, with the retirement of the worker.
        """
        if self.draining or not self.owns(attempt.row):
            self.slots.release(1, in_process=attempt.in_process)
            return
        self._running.setdefault(attempt.row.run_id, {})[attempt.row.claim or ""] = attempt
        if not self._line and self.slots.enter():
            self._begin(attempt)
            return
        self._line.append(attempt)
        attempt.in_line_until = asyncio.get_running_loop().time() + PATIENCE
        if self._line_watch is None:
            self._watch_line()

    def _begin(self, attempt: Attempt) -> None:
        loop = asyncio.get_running_loop()
        attempt.entered_at = loop.time()
        attempt.task = loop.create_task(self._attempt(attempt))

    def _watch_line(self) -> None:
        when = self._line[0].in_line_until
        self._line_watch = asyncio.get_running_loop().call_at(when, self._look_at_line, when)

    def _look_at_line(self, now: float) -> None:
        """Send those back to the store who have waited for long enough."""
        self._line_watch = None
        while self._line and self._line[0].in_line_until <= now:
            self.slots.slow_down()
            self._send_back(self._line.popleft())
        if self._line:
            self._watch_line()

    def _send_back(self, attempt: Attempt) -> None:
        self._forget(attempt)
        if attempt.reason in (None, "requested"):  # else its row is somebody else's to judge
            self._hand_back(attempt.row)

    # --- ends --------------------------------------------------------------------------------------------------------

    async def _attempt(self, attempt: Attempt) -> None:
        engine, row = self._engine, attempt.row
        outcome: Outcome | None = None
        try:
            result = await attempt.run()
            if result is not None and attempt.reason not in ("lost", "timeout"):
                outcome = outcomes.completed(row, result, engine.store.now(), engine.worker_id)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            outcome = self._outcome_of(attempt, exc)
        finally:
            self._forget(attempt)
        if outcome is not None:
            self._end(row, outcome, attempt)
        elif attempt.reason == "shutdown":
            self._save_progress(attempt)

    async def transact(self, attempt: Attempt, call: Callable[[], Awaitable[object]]) -> None:
        """Run a transactional attempt: its rows, the end of its own row and the message to its run are one commit.

        Where one transaction keeps all others waiting, nobody else could end it: so it ends itself, in time for the
        engine's lease.
        """
        engine, row = self._engine, attempt.row
        limit = min(engine.lease.seconds / 2, (attempt.command.start_to_close or FOREVER) / SECOND)
        told: list[ev.Fact] = []

        async def work(connection: Any) -> Transition:
            attempt.context._transaction = connection
            fact, finish = outcomes.completed(row, attempt.encode(await call()), engine.store.now(), engine.worker_id)
            told.append(fact)
            # Without a claim of the run: nobody would know of it if the answer is lost.
            return finish, Deliver(NewMessage(encode_struct(fact)), row.run_id, drop=True)

        timeout = asyncio.timeout(limit)
        try:
            async with timeout:
                result = await engine.store.transact(work)
        except TimeoutError as exc:
            if not timeout.expired():
                raise
            raise Overrun(f"the transaction of activity {row.name!r} took longer than {limit:g} s") from exc
        if isinstance(result, Receipt):
            engine.message_delivered(result, None, told[0])
        else:
            attempt.cancel("lost")

    def _outcome_of(self, attempt: Attempt, error: BaseException) -> Outcome | None:
        """What an error means; None when whoever took the attempt away writes what there is to write."""
        if attempt.reason in ("lost", "timeout", "shutdown"):
            return None
        now = self._engine.store.now()
        if attempt.reason == "requested" and isinstance(error, (asyncio.CancelledError, ProcessDied)):
            return outcomes.cancelled(attempt.row, now)
        return outcomes.failed(attempt, error, now, self._engine.worker_id, self._engine.default_retry_if)

    def _forget(self, attempt: Attempt) -> None:
        attempt.end()
        row = attempt.row
        of_run = self._running.get(row.run_id, {})
        of_run.pop(row.claim or "", None)
        if not of_run:
            self._running.pop(row.run_id, None)
        self.slots.release(1, in_process=attempt.in_process)
        if attempt.entered_at is not None:
            self.slots.leave(asyncio.get_running_loop().time() - attempt.entered_at)
            while self._line and self.slots.enter():
                self._begin(self._line.popleft())

    def _end(self, row: ActivityRow, outcome: Outcome, attempt: Attempt | None = None) -> None:
        engine, (fact, change) = self._engine, outcome
        if fact is None:
            last = () if attempt is None else self.heartbeats.unwritten(attempt)
            engine.submit((*last, change), lambda _: None)
        elif row.attempt > 1:
            # After an attempt that may have died with its process, the result is made durable before any workflow
            # code sees it: a run whose code kills the process must not cost the activity another attempt each time.
            engine.workflows.deliver_direct(row.run_id, PendingFact(fact, 0, change))
        else:
            engine.workflows.direct(row.run_id, fact, change)

    def _save_progress(self, attempt: Attempt) -> None:
        changes = self.heartbeats.unwritten(attempt)
        if changes:
            self._engine.submit(changes, lambda _: None)

    # --- those that are no longer wanted -----------------------------------------------------------------------------

    def cancel(
        self, run_id: str, activity: int | None = None, reason: CancelReason = "requested", claim: str | None = None
    ) -> None:
        """Stop the attempts of one activity (with `claim` that one only), or all of a closed run's."""
        for attempt in list(self._running.get(run_id, {}).values()):
            if activity is None:
                attempt.cancel("lost")
            elif attempt.row.activity == activity and claim in (None, attempt.row.claim):
                attempt.cancel(reason)

    async def watch(self) -> None:
        """Ask the store, when told to `look` and after heartbeats, whether attempts are still ours and wanted."""
        engine = self._engine
        while True:
            await self._watch_now.wait()
            self._watch_now.clear()
            attempts = [attempt for attempt in self.running() if attempt.has_begun]
            if not attempts:
                continue
            places = [(attempt.row.run_id, attempt.row.activity) for attempt in attempts]
            found = await engine.persist(partial(engine.store.attempts, places), "look at running activities")
            states = {(state.run_id, state.activity): state for state in found}
            for attempt, place in zip(attempts, places, strict=True):
                state = states.get(place)
                if state is None or state.claim != attempt.row.claim:
                    attempt.cancel("lost")
                elif state.cancel_requested:
                    attempt.cancel("requested")

    def look(self) -> None:
        """Have the attempts that run here watched."""
        if self._running:
            self._watch_now.set()

    def abandon_all(self) -> None:
        """All claims are gone: stop the attempts, their rows are others' to judge."""
        for attempt in self.running():
            attempt.cancel("lost")

    def last_heartbeat(self, row: ActivityRow) -> tuple[Change, ...]:
        """The newest heartbeat of an attempt that runs here, if the store does not have it."""
        attempt = self._running.get(row.run_id, {}).get(row.claim or "")
        return () if attempt is None else self.heartbeats.unwritten(attempt)

    async def drain(self, timeout: float) -> None:
        """Let attempts end by themselves for a while, then stop them; their rows go back with the worker's lease."""
        while self._line:
            self._send_back(self._line.popleft())
        await self._wait_for_tasks(timeout)
        for attempt in self.running():
            attempt.cancel("shutdown")
        await self._wait_for_tasks(1.0)
        for attempt in self.running():
            self._save_progress(attempt)
            attempt.abandon()
        await self._wait_for_tasks(1.0)
        self.threads.close()
        await self.processes.close()

    async def _wait_for_tasks(self, timeout: float) -> None:
        tasks = [attempt.task for attempt in self.running() if attempt.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)
