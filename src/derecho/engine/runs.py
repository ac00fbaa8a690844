"""The runs that an engine has in memory, and the turns that they take.

A `LiveRun` is bookkeeping around an `Execution`: where the history stands, which facts wait for the next workflow
task, which claim is held. The cache keeps sleeping runs warm as long as there is room; leaving it costs a replay.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from derecho.errors import DerechoError
from derecho.journal import events as ev
from derecho.journal.changes import Change
from derecho.journal.model import ClaimedRun, Head, RunRow
from derecho.replay import replay_task
from derecho.runtime.decider import Decision
from derecho.runtime.execution import Execution
from derecho.runtime.handles import ActivityFuture
from derecho.runtime.rows import RunIdentity
from derecho.workflow import WorkflowDefinition

_LOOK_AT = 4
"""Runs that the cache looks at when it has too many."""
_REST, _MANY = 4, 100
"""Times for which it does not look after it has found none to evict, as while all of them wait for activities; and how
many there must be too many for that, because nobody comes back for the last ones."""
_CROWD = 10
"""How many times the cache's capacity may wait for activities."""


class PendingFact(NamedTuple):
    """A fact for the next turn. From the inbox: `number` > 0. Direct: `change` removes the row that it came from."""

    fact: ev.Fact
    number: int
    change: Change | None


class LiveRun:
    """A run in memory.

    Invariants: at most one turn at a time is under way (`busy`, from submission until its commit is known). `facts`
    holds what no turn has taken. `head` is where the store stands as far as this engine knows. Without `claim` only
    direct facts may lead to a turn.
    """

    __slots__ = (
        *("blocked_count", "busy", "claim", "close_policy", "definition", "execution", "facts", "gone", "head"),
        *("identity", "inbox_taken", "later", "loading", "steps"),
    )

    def __init__(self, row: RunRow, definition: WorkflowDefinition) -> None:
        self.identity = RunIdentity.of(row)
        self.definition = definition
        self.head: Head = row.head
        self.inbox_taken = row.inbox_read
        self.claim: str | None = row.claim
        self.blocked_count = row.blocked_count
        self.close_policy = row.close_policy
        self.execution: Execution | None = None
        self.facts: list[PendingFact] = []
        self.busy = False
        self.loading = False
        self.gone = False
        self.later: ClaimedRun | None = None
        self.steps: dict[int, asyncio.Task[None]] = {}

    @property
    def inbox_known(self) -> int:
        """The last message that waits in `facts`, is in the turn under way, or has been read."""
        return max((item.number for item in self.facts), default=0) or self.inbox_taken

    @property
    def has_messages(self) -> bool:
        """Whether some of `facts` are in its inbox, so that a turn needs the claim."""
        return any(item.number for item in self.facts) if self.facts else False

    def drop_messages(self) -> None:
        """Know nothing of its inbox any more; direct facts stay."""
        self.facts[:] = [item for item in self.facts if not item.number]

    @property
    def is_idle(self) -> bool:
        return not (self.busy or self.loading or self.claim or self.steps or self.facts)

    @property
    def awaits_activity(self) -> bool:
        """Whether an activity is queued or under way for it, so that it will soon go on."""
        if self.execution is not None:
            for item in self.execution.pending.values():
                if isinstance(item, ActivityFuture):
                    return True
        return False

    def take_down(self, submit: "Callable[[CloseJob], None]") -> None:
        """Let go of its code; what of it has not ended unwinds on the workflow thread, where it may be running now."""
        execution, self.execution = self.execution, None
        if execution is not None:
            execution.close() if execution.is_over and not self.busy else submit(CloseJob(execution))


class Turn:
    """One workflow task on its way: `facts` in, `commands` or `error` out, then `decision`. Its job is to run the code.

    `given`: the facts as the code gets them. `make` and `history`: a fresh execution for a run that has none, and the
    events of each workflow task that is replayed in it first.
    """

    __slots__ = (
        *("at", "commands", "consume_to", "decision", "error", "execution", "facts", "given", "inbox_seen", "live"),
        *("history", "make"),
    )

    def __init__(
        self,
        live: LiveRun,
        facts: Sequence[PendingFact],
        at: int,
        history: Sequence[list[ev.AnyEvent]],
        make: Callable[[LiveRun], Execution],
    ) -> None:
        self.live = live
        self.facts = list(facts)
        self.given = [item.fact for item in facts]
        self.at = at
        self.history = history
        self.make = make
        self.execution = live.execution
        self.consume_to: int | None = None
        for item in facts:
            if item.number:
                self.consume_to = item.number
        self.inbox_seen = self.consume_to or live.inbox_taken
        self.commands: list[ev.CommandEvent] = []
        self.error: Exception | None = None
        self.decision: Decision | None = None

    def run(self, mark: Callable[[], None]) -> None:
        live = self.live
        execution = self.execution
        try:
            if execution is None:
                execution = self.execution = self.make(live)
                for events in self.history:
                    mark()
                    replay_task(execution, events)
                live.execution = execution
            if not self.given:
                return  # rebuilt only
            mark()
            self.commands = execution.activate(self.given, self.at)
        except BaseException as exc:  # on this thread nobody else would see it
            self.error = exc if isinstance(exc, Exception) else DerechoError(f"the workflow's code raised {exc!r}")
            if execution is not None:
                execution.close()
            live.execution = None

    def abandon(self) -> None:
        """The run was given up while its code was on this thread, so here is where it comes down."""
        self.live.execution = None
        if self.execution is not None:
            self.execution.close()


class CloseJob:
    """Take an execution down on the workflow thread."""

    __slots__ = ("execution",)

    def __init__(self, execution: Execution) -> None:
        self.execution = execution

    def run(self, mark: Callable[[], None]) -> None:
        mark()
        self.execution.close()

    def abandon(self) -> None:
        pass


class Cache:
    """Live runs, least recently used first. Capacity never gates work: only idle runs are evicted.

    It counts sleeping runs. Those that wait for activities are needed again in the order in which they came, and an
    LRU would evict each just before its turn: they stay until there are `_CROWD` times as many.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._by_workflow_id: dict[str, LiveRun] = {}
        self._rest = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LiveRun]:
        return iter(list(self._runs.values()))

    def get(self, run_id: str) -> LiveRun | None:
        return self._runs.get(run_id)

    def find(self, workflow_id: str) -> LiveRun | None:
        return self._by_workflow_id.get(workflow_id)

    def add(self, run: LiveRun) -> None:
        self._runs[run.identity.run_id] = run
        self._by_workflow_id[run.identity.workflow_id] = run

    def touch(self, run: LiveRun) -> None:
        if run.identity.run_id in self._runs:
            self._runs.move_to_end(run.identity.run_id)

    def remove(self, run: LiveRun) -> None:
        if self._runs.get(run.identity.run_id) is run:
            del self._runs[run.identity.run_id]
        if self._by_workflow_id.get(run.identity.workflow_id) is run:
            del self._by_workflow_id[run.identity.workflow_id]

    def surplus(self) -> list[LiveRun]:
        """Idle runs to evict, so that about `capacity` stay.

        Looks at a few of them, however many there are too many: it is asked after every commit. A run that is busy now
        has just been used, so it goes to the end of the line.
        """
        over = len(self._runs) - self.capacity
        if over <= 0 or self._rest > 0:
            self._rest = max(0, self._rest - 1)
            return []
        found: list[LiveRun] = []
        crowded = len(self._runs) > _CROWD * self.capacity
        for _ in range(min(_LOOK_AT, over)):
            run = next(iter(self._runs.values()))
            self._runs.move_to_end(run.identity.run_id)
            if run.is_idle and (crowded or not run.awaits_activity):
                found.append(run)
        self._rest = _REST if over > _MANY and not found else 0
        return found


def unused(*_: Any) -> None:
    """A callback for commits whose outcome changes nothing."""
