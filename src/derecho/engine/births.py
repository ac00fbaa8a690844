"""Starting a run with its first workflow task already done: one commit instead of two.

The code of a workflow decides nothing outside its commands, so it may run before anybody knows whether its run will
exist; if the start is refused, the execution is dropped. Whatever stands in the way (the code fails or blocks, its
commands cannot be committed) leads to the plain start, which records the run and leaves the rest to ordinary turns.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from derecho import outages
from derecho.committer import resolve
from derecho.engine.plans import plan_turn
from derecho.engine.runs import LiveRun, PendingFact, Turn, unused
from derecho.engine.turns import CROWD
from derecho.errors import PayloadError, StoreError, StoreUnavailable
from derecho.journal import events as ev
from derecho.journal.changes import Advance, Conflict, CreateRun, Receipt, ReleaseRun, Result, Transition
from derecho.journal.model import CLAIMED, RunRow
from derecho.runtime.execution import Execution
from derecho.starts import with_messages
from derecho.workflow import WorkflowDefinition

if TYPE_CHECKING:
    from derecho.engine.engine import Engine
    from derecho.engine.workflow_worker import WorkflowWorker

_PATIENCE, _LONG_PATIENCE = 0.1, 1.0
"""Seconds for which one turn may hold the workflow thread before starts stop waiting for theirs; and that turn's own
start, because what it has computed by then would be computed again."""


_Answer = asyncio.Future[Result]
_Start = tuple[_Answer, WorkflowDefinition, CreateRun, Sequence[ev.Fact]]


class Birth(Turn):
    """The first turn of a run that is not in the store yet; `answer` is for whoever starts it."""

    __slots__ = ("answer", "create", "has_begun", "is_back")

    def __init__(
        self,
        live: LiveRun,
        facts: Sequence[PendingFact],
        at: int,
        make: Callable[[LiveRun], Execution],
        create: CreateRun,
        answer: _Answer,
    ) -> None:
        super().__init__(live, facts, at, (), make)
        self.create = create
        self.has_begun = False
        self.is_back = False  # from the workflow thread, so that the execution may be touched
        self.answer = answer

    def run(self, mark: Callable[[], None]) -> None:
        self.has_begun = True
        if not self.live.gone:
            super().run(mark)


def _in_one(create: CreateRun, turn: Transition) -> Transition:
    """A start and its first turn; where the run goes on, the store creates it as it stands behind that turn."""
    advance = turn[0]
    if not isinstance(advance, Advance) or advance.outcome is not None:
        return create, *turn
    first = advance.row
    row = replace(create.row, status=advance.status, tasks=first.task, events=advance.events, digest=first.digest)
    return replace(create, row=row, first=first, keep_claim=advance.keep_claim), *turn[1:]


class Births:
    """The starts under way in one engine. All methods run on the engine's loop."""

    def __init__(self, engine: "Engine", worker: "WorkflowWorker") -> None:
        self._engine = engine
        self._worker = worker
        self._waiting: dict[Birth, None] = {}  # for the workflow thread
        self._look_again: asyncio.TimerHandle | None = None
        self.under_way = 0
        self._queue: deque[_Start] = deque()

    async def begin(self, definition: WorkflowDefinition, create: CreateRun, facts: Sequence[ev.Fact]) -> Result:
        """Commit a start together with its first turn, or the plain start; raises StoreError and PayloadError."""
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._queue.append((answer, definition, create, facts))
        self._begin_some()
        return await answer

    def _begin_some(self) -> None:
        """Begin those that are next, so that a crowd is under way and no more."""
        while self._queue and self.under_way < CROWD:
            start = self._queue.popleft()
            if not start[0].done():  # whoever started it may have gone away
                self._begin(*start)

    def _begin(
        self, answer: _Answer, definition: WorkflowDefinition, create: CreateRun, facts: Sequence[ev.Fact]
    ) -> None:
        worker, engine = self._worker, self._engine
        row = replace(create.row, claim=engine.new_claim(), worker=engine.incarnation, ready_at=CLAIMED)
        pending = [PendingFact(fact, 0, None) for fact in facts]
        birth = Birth(
            LiveRun(row, definition), pending, engine.store.now(), worker.make, replace(create, row=row), answer
        )
        self.under_way += 1
        self._waiting[birth] = None
        worker.turns.submit(birth)
        if self._look_again is None:
            self._look()

    def close(self) -> None:
        """Starts that are not on their way to the store are told so."""
        stopped = StoreUnavailable("the engine has stopped", outcome="not_applied")
        while self._queue:
            resolve(self._queue.popleft()[0], stopped)
        while self._waiting:
            birth, _ = self._waiting.popitem()
            birth.live.gone = True
            self._answer(birth, stopped)

    def succeed(self, row: RunRow, facts: Sequence[ev.Fact]) -> None:
        """Begin a run that continues another one: just created, claimed for this engine unless its lease was lost."""
        worker, definition = self._worker, self._engine.registry.find(row.workflow_type, row.version)
        if isinstance(definition, str) or worker.draining or self._is_stale(row):
            self._engine.submit((ReleaseRun(row.run_id, row.claim or ""),), unused)
            return
        run = LiveRun(row, definition)
        worker.runs.add(run)
        run.facts.extend(PendingFact(fact, number, None) for number, fact in enumerate(facts, 1))
        worker.next(run)

    def finished(self, birth: Birth) -> None:
        """A first turn is back from the workflow thread: commit it with its start."""
        run, worker = birth.live, self._worker
        birth.is_back = True
        if birth not in self._waiting:
            return self._drop(run)  # nobody waits for it any more
        del self._waiting[birth]
        if birth.error is not None or run.execution is None or self._is_stale(birth.create.row):
            return self._plain(birth)
        try:
            plan = plan_turn(self._engine, birth, run.execution, 0, worker.warm_claim)
        except PayloadError:
            return self._plain(birth)
        transition = _in_one(birth.create, plan.transition)

        def done(result: Result | StoreError) -> None:
            if isinstance(result, Receipt) and not result.repeated and not self._is_stale(birth.create.row):
                worker.runs.add(run)
                worker.settle(birth, plan, result)
                self._answer(birth, result)
                return
            plan.reservation.give_back()
            if isinstance(result, StoreError) or not (isinstance(result, Conflict) or result.repeated):
                self._engine.release_uncertain(transition, None)  # a repeated one has been released by the committer
            taken = isinstance(result, Conflict) and result.reason in ("already_running", "superseded")
            if taken or isinstance(result, Receipt | StoreUnavailable):
                self._end(birth, result)
            else:
                self._plain(birth)

        self._engine.committer.submit(transition, done, outages.PATIENCE)

    def give_up(self, birth: Birth) -> None:
        """Code holds the workflow thread, this run's or another's: do not wait for the turn."""
        if birth in self._waiting:
            birth.live.gone = True
            self._plain(birth)

    def _plain(self, birth: Birth) -> None:
        """Record the run, unclaimed, with its first messages in its inbox."""
        self._waiting.pop(birth, None)
        row = replace(birth.create.row, claim=None, worker=None, ready_at=birth.create.row.started_at)
        try:
            create = with_messages(replace(birth.create, row=row), birth.given)
        except PayloadError as exc:
            self._end(birth, exc)
        else:
            self._engine.committer.submit((create,), lambda result: self._end(birth, result), outages.PATIENCE)

    def _is_stale(self, row: RunRow) -> bool:
        """The lease was lost meanwhile: the claim is gone, and somebody may hold the run already."""
        return row.worker != self._engine.incarnation or self._worker.runs.get(row.run_id) is not None

    def _end(self, birth: Birth, result: Result | StoreError | PayloadError) -> None:
        if birth.is_back:
            self._drop(birth.live)
        self._answer(birth, result)

    def _answer(self, birth: Birth, result: Result | StoreError | PayloadError) -> None:
        self.under_way -= 1
        resolve(birth.answer, result)
        self._begin_some()

    def _drop(self, run: LiveRun) -> None:
        run.gone = True
        run.take_down(self._worker.turns.submit)

    def _look(self) -> None:
        """Acknowledging a start must not wait for another run's code that blocks."""
        self._look_again = None
        held = self._worker.turns.held()
        for birth in list(self._waiting):
            if held > (_LONG_PATIENCE if birth.has_begun else _PATIENCE):
                self.give_up(birth)
        if self._waiting:
            self._look_again = asyncio.get_running_loop().call_later(_PATIENCE, self._look)
