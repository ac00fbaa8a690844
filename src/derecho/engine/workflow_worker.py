"""The workflow worker: claim a run, hand it its facts, commit what its code asks for, or let it go.

Facts reach a run in two ways. *Messages* are in its inbox, committed by whoever sent them; the run is claimed to read
them. *Direct* facts are results that this engine has in hand for a run that it holds warm: they go straight into the
next turn, and the row that they came from is removed in the turn's own commit. When such a commit conflicts, or the
turn cannot be made, each direct fact is delivered to the inbox instead, so nothing depends on this engine's memory.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from derecho.engine.activity_worker import Reservation
from derecho.engine.births import Birth, Births
from derecho.engine.blocking import QUARANTINE_AFTER, Blocker, Suspects
from derecho.engine.histories import Histories
from derecho.engine.plans import Plan, plan_turn
from derecho.engine.runs import Cache, LiveRun, PendingFact, Turn, unused
from derecho.engine.steps import StepRunner
from derecho.engine.turns import CROWD, Job, Turns
from derecho.errors import PayloadError, StoreError
from derecho.journal import events as ev
from derecho.journal.changes import CancelActivity, Change, Conflict, Deliver, NewMessage, Receipt, ReleaseRun, Result
from derecho.journal.model import ClaimedRun, RunRow
from derecho.journal.wire import decode_fact, encode_struct, verify
from derecho.runtime.ending import terminate
from derecho.runtime.execution import Execution

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

log = logging.getLogger("derecho.engine")


class WorkflowWorker:
    """The live runs of one engine. All methods run on the engine's loop; user code runs on the workflow thread."""

    def __init__(self, engine: "Engine", cache_size: int, deadlock_timeout: float | None) -> None:
        self._engine = engine
        self.runs = Cache(cache_size)
        self.turns = Turns(self._finished, self._stuck, deadlock_timeout)
        self.births = Births(engine, self)
        self.steps = StepRunner(engine, self.direct)
        self.blocker = Blocker(engine)
        self._histories = Histories(engine, self._spawn)
        self._background: set[asyncio.Task[None]] = set()
        self._suspects = Suspects(engine.store)
        self._refusals: dict[str, int] = {}
        self.draining = False

    # --- where facts come from ---------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Claim runs that are ready, for ever; a store in trouble is asked again."""
        engine = self._engine
        while True:
            await self.turns.room()
            mark, asked_at = engine.store.seen("runs"), engine.store.now()
            tokens = [engine.new_claim() for _ in range(CROWD)]
            suspects = 0 if self._suspects else 1
            types = engine.registry.kinds()
            claim = partial(engine.store.claim_runs, engine.incarnation, tokens, types, suspects)
            taken = await engine.persist(claim, "claim runs")
            for item in taken.rows:
                self.claimed(item)
            if not taken.rows:
                await engine.store.wait("runs", mark, engine.until_next(taken, asked_at))

    def claimed(self, item: ClaimedRun) -> None:
        """A run that the store gave to this engine, with its unread messages."""
        row = item.run
        run = self.runs.get(row.run_id)
        if run is not None and (run.busy or run.loading):
            run.later = item  # its own turn is on the way to the store; look again when that is known
            return
        if row.terminate is not None:
            self._spawn(self._terminate(row))
            return
        if row.crashes >= QUARANTINE_AFTER:
            self.blocker.quarantine(row)
            return
        definition = self._engine.registry.find(row.workflow_type, row.version)
        if isinstance(definition, str):
            self.blocker.block_row(row, definition)
            return
        if row.crashes:
            self._suspects.add(row.run_id)
        if run is not None and (run.head != row.head or run.execution is None):
            self._fall_back(run, ())
            run = None
        if run is None:
            run = LiveRun(row, definition)
            self.runs.add(run)
        run.claim = row.claim
        run.blocked_count = row.blocked_count
        try:
            self._take_messages(run, item)
        except PayloadError as exc:
            return self._block(run, (), exc)
        self.next(run)

    def delivered(self, run_id: str, number: int, claim: str | None, fact: ev.Fact) -> None:
        """A message that this process has just put into the inbox; `claim` when it was claimed on the way."""
        run = self.runs.get(run_id)
        if run is None or (claim is not None and not claim.startswith(self._engine.incarnation)):  # of a lost lease
            if claim is not None:
                self._engine.submit((ReleaseRun(run_id, claim),), unused)
            return
        if claim is not None:
            run.claim = claim
        if number == run.inbox_known + 1 and (run.claim is not None or run.busy):
            run.facts.append(PendingFact(fact, number, None))
            self.next(run)
        elif claim is not None:
            run.claim = None
            self._engine.submit((ReleaseRun(run_id, claim),), unused)  # other messages came between: read them first

    def direct(self, run_id: str, fact: ev.Fact, change: Change | None) -> None:
        """A result at first hand; `change` takes away the row it came from."""
        run = self.runs.get(run_id)
        if run is not None and not self.draining:
            run.facts.append(PendingFact(fact, 0, change))
            self.next(run)
        elif change is not None:
            self.deliver_direct(run_id, PendingFact(fact, 0, change))

    def warm_claim(self, run_id: str) -> str | None:
        """A claim token for a `Deliver`, when this engine holds the run warm and could go on with it at once."""
        run = self.runs.get(run_id)
        if run is None or self.draining or run.claim is not None or run.busy or run.execution is None:
            return None
        return self._engine.new_claim()

    def deliver_direct(self, run_id: str, item: PendingFact) -> None:
        """Put a direct fact into the inbox, the safe way; a conflict means that its row is gone, and so its point."""
        if item.change is not None:
            deliver = Deliver(NewMessage(encode_struct(item.fact)), run_id=run_id, drop=True)
            self._engine.submit((item.change, deliver), partial(self._engine.arrived, item.fact))

    # --- turns -------------------------------------------------------------------------------------------------------

    def next(self, run: LiveRun) -> None:
        """Begin the next turn if there is something to do and the right to do it."""
        if run.busy or run.loading or run.gone:
            return
        if run.claim is None and run.has_messages:
            # They came while a turn was under way that let the run go. Whoever claims it next reads them: perhaps not
            # this engine, and then nobody would come for what is in hand.
            run.drop_messages()
        if not run.facts:
            if run.claim is not None and not run.steps:
                if run.execution is None:
                    self._take_turn(run)  # claimed without messages: it may have steps that have to run again
                else:
                    self._release(run)
            return
        self._take_turn(run)

    def _take_turn(self, run: LiveRun) -> None:
        if run.execution is None and run.head.tasks:
            run.loading = True
            self._spawn(self._load(run))
        else:
            self._submit(run, ())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _load(self, run: LiveRun) -> None:
        """Read and verify the history of a run that is not in memory, then take the turn."""
        engine, run_id = self._engine, run.identity.run_id
        try:
            rows = await self._histories.load(run_id, run.head.events)
            tasks = verify(rows, head=run.head.digest, run_id=run_id)
        except (StoreError, PayloadError) as exc:
            row = await engine.persist(lambda: engine.store.get_run(run_id), "look at a run")
            run.loading = False
            if row is not None and row.claim == run.claim:
                self._block(run, [], exc)
            else:  # somebody else has it by now, and has gone on with it
                self._fall_back(run, ())
            return
        run.loading = False
        if not run.gone:
            self._submit(run, tasks)

    def _submit(self, run: LiveRun, history: Sequence[list[ev.AnyEvent]]) -> None:
        turn = Turn(run, run.facts, self._engine.store.now(), history, self.make)
        run.facts.clear()
        run.inbox_taken = turn.inbox_seen
        run.busy = True
        self.runs.touch(run)
        self.turns.submit(turn)

    def make(self, run: LiveRun) -> Execution:
        make = run.definition.new_execution
        return make(run.identity.workflow_id, run.identity.run_id, self._engine.converter, self._engine.default_retry)

    def _finished(self, job: Job) -> None:
        """A turn is back from the workflow thread: commit it."""
        if isinstance(job, Birth):
            self.births.finished(job)
            return
        if not isinstance(job, Turn):
            return
        run = job.live
        if job.error is not None:
            self._block(run, job.facts, job.error)
        elif run.gone or run.execution is None:
            self._fall_back(run, job.facts)
        elif not job.facts:
            run.busy = False  # it was only rebuilt: its unfinished steps run again
            self.steps.start(run)
            self.next(run)
        else:
            self._commit(job, run.execution)

    def _commit(self, turn: Turn, execution: Execution) -> None:
        refusals = self._refusals.get(turn.live.identity.run_id, 0)
        try:
            plan = plan_turn(self._engine, turn, execution, refusals, self.warm_claim)
        except PayloadError as exc:  # some text in a command cannot be recorded
            self._block(turn.live, turn.facts, exc)
            return

        self._engine.submit(plan.transition, partial(self.settle, turn, plan))

    def settle(self, turn: Turn, plan: Plan, result: Result | StoreError) -> None:
        """What became of a turn's commit."""
        self._committed(turn, plan.reservation, result)
        if isinstance(result, Receipt) and not result.repeated:
            for run_id, number, claim, fact in plan.delivered(result):
                if claim is not None or self.runs.get(run_id) is not None:
                    self.delivered(run_id, number, claim, fact)
            if plan.successor is not None:
                self.births.succeed(*plan.successor)

    def _committed(self, turn: Turn, reservation: Reservation, result: Result | StoreError) -> None:
        run, decision = turn.live, turn.decision
        run_id = run.identity.run_id
        if decision is None or not isinstance(result, Receipt):
            reservation.give_back()
            self._refused(turn, result)
            return
        run.busy = False
        run.head = decision.head
        run.blocked_count = 0
        run.claim = (run.claim or decision.advance.take) if decision.advance.keep_claim else None
        self._suspects.clear(run_id)
        # Nothing starts before its commit is known; after a doubt the engine hands the rows back instead.
        reservation.give_back() if result.repeated else reservation.start()
        for change in decision.changes:
            if isinstance(change, CancelActivity):
                self._engine.activities.cancel(run_id, change.activity)
        if decision.outcome is not None:
            self._refusals.pop(run_id, None)
            self._engine.activities.cancel(run_id)
            self.evict(run)
            self._engine.client.run_closed(run_id, decision.advance.status, decision.outcome)
            return
        self.evict(run) if run.gone else self.steps.start(run)
        if run.later is not None:
            self._look_later(run)
        else:
            self.next(run)
        for sleeper in self.runs.surplus():
            self.evict(sleeper)

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def _refused(self, turn: Turn, result: Result | StoreError | None) -> None:
        """The world had changed, so this turn never happened: forget it, and let the store say what is next."""
        run = turn.live
        if isinstance(result, Conflict) and result.reason == "unfit":
            result = StoreError(f"the store cannot keep what this turn asks for: {result.detail}")
        if isinstance(result, StoreError):
            return self._block(run, turn.facts, result)
        if isinstance(result, Conflict):
            log.debug("turn of run %s was refused: %s %s", run.identity.run_id, result.reason, result.detail)
            if result.reason == "unread":
                self._refusals[run.identity.run_id] = self._refusals.get(run.identity.run_id, 0) + 1
        self._fall_back(run, turn.facts)

    def _fall_back(self, run: LiveRun, facts: Sequence[PendingFact]) -> None:
        """Give up a run in memory; what was in hand for it goes to its inbox, its claim back to the store."""
        self.evict(run)
        for fact in (*facts, *run.facts):
            self.deliver_direct(run.identity.run_id, fact)
        run.facts.clear()
        if run.claim is not None:
            self._engine.submit((ReleaseRun(run.identity.run_id, run.claim),), unused)
            run.claim = None
        self._look_later(run)

    def _look_later(self, run: LiveRun) -> None:
        """The store gave this run to us while its last turn was under way."""
        if run.later is not None:
            item, run.later = run.later, None
            self.claimed(item)

    def _block(self, run: LiveRun, facts: Sequence[PendingFact], error: Exception) -> None:
        """Its code, data or history stands in the way: mark the run, keep its facts, try again later."""
        for item in (*facts, *run.facts):
            self.deliver_direct(run.identity.run_id, item)
        run.facts.clear()
        self.blocker.block(run, error)
        run.claim = None
        self.evict(run)
        self._look_later(run)

    def _stuck(self, job: Job, seconds: float, stack: str) -> None:
        if isinstance(job, Birth):
            self.births.give_up(job)
        elif isinstance(job, Turn):
            run = job.live
            run.execution = None  # its code is still on its thread, which takes it down (`Turn.abandon`)
            self._block(run, job.facts, self.blocker.deadlock(run, seconds, stack))
        else:
            log.error("workflow code blocks while it is taken out of memory, for %.1f s at %s", seconds, stack)

    async def _terminate(self, row: RunRow) -> None:
        """Close a run on request; its code is not asked, its children follow their close policy."""
        engine = self._engine
        run = self.runs.get(row.run_id)
        if run is not None:
            self.evict(run)
        event = ev.WorkflowTerminated(row.terminate or "", max(engine.store.now(), row.started_at))
        children = await engine.persist(lambda: engine.store.children(row.run_id), "find the children of a run")
        transition = terminate(row, children, event, row.claim)

        def done(result: Result | StoreError) -> None:
            engine.activities.cancel(row.run_id)
            if isinstance(result, Receipt):
                engine.client.run_closed(row.run_id, "terminated", event)

        engine.submit(transition, done)

    # --- leaving memory ----------------------------------------------------------------------------------------------

    def forget(self, run_id: str) -> None:
        """Someone else closed this run."""
        run = self.runs.get(run_id)
        self._engine.activities.cancel(run_id)
        if run is not None:
            run.gone = True  # while a turn is on its way, it is taken down when that is known
            if not run.busy:
                self.evict(run)

    def evict(self, run: LiveRun) -> None:
        """Take a run out of memory; its code unwinds and cannot act."""
        run.gone = True
        self._suspects.clear(run.identity.run_id)
        self.runs.remove(run)
        self.steps.cancel(run)
        run.take_down(self.turns.submit)
        run.busy = False

    async def close(self, timeout: float) -> None:
        """Give everything back: turns end, facts in hand go to inboxes, code is taken down. A turn that is not back
        after `timeout` seconds is left to its thread; its run goes back with the lease."""
        self.draining = True
        for run in self.runs:
            if not run.busy:
                self._fall_back(run, ())
        deadline = time.monotonic() + timeout
        while (self.births.under_way or any(run.busy for run in self.runs)) and time.monotonic() < deadline:
            with suppress(TimeoutError):  # the store may be away
                await asyncio.wait_for(self._engine.committer.flush(), deadline - time.monotonic())
            await asyncio.sleep(0.002)  # the turn is on the workflow thread
        self.births.close()
        self.steps.close()
        for run in self.runs:
            self._fall_back(run, ())
        for task in self._background:  # histories that are still being read
            task.cancel()
        self.turns.close()

    def abandon_all(self) -> None:
        """This engine was declared dead while it was paused: all its claims are gone, and so is what it knows."""
        for run in self.runs:
            run.claim = None
            if not run.busy:
                self._fall_back(run, ())

    def _release(self, run: LiveRun) -> None:
        claim, run.claim = run.claim, None
        if claim is not None:
            self._engine.submit((ReleaseRun(run.identity.run_id, claim, ready=False),), unused)

    def _take_messages(self, run: LiveRun, item: ClaimedRun) -> None:
        """What the store says is unread replaces what this engine knew of the inbox."""
        fresh = [PendingFact(decode_fact(message.data), message.number, None) for message in item.messages]
        run.drop_messages()
        run.facts[:0] = fresh
