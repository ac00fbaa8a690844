"""What a store must do: apply changes all or nothing, hand out work, remember. It knows no workflow rule.

Third parties implement `Store` and run `derecho.testing.conformance`. Every method may be called from any event loop of
the process (an engine renews its lease from a thread of its own). Methods raise `StoreUnavailable` when they may work
later, with `outcome="unknown"` when a commit may or may not have happened, and `StoreError` when they never will.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from derecho.journal import model
from derecho.journal.changes import Result, Transition
from derecho.journal.wire import HistoryRow

R = TypeVar("R", model.ClaimedRun, model.ActivityRow)


class Taken(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """What a claim took, and the instant of the first that it could have taken: it may lie ahead (None: there is none).

    An engine that got nothing need not look again before that instant, unless a hint says so.
    """

    rows: list[R]
    first_at: int | None


_Rows = Sequence[model.ActivityRow]


class DueTimers(msgspec.Struct, frozen=True, gc=False):
    """Timers that are due, soonest first, and when the next one after them is (None: there is none)."""

    timers: list[model.TimerRow]
    next_at: int | None


class Overdue(msgspec.Struct, frozen=True, gc=False):
    """Activities past a deadline or held by the dead, workers whose lease has run out, and when to look next."""

    activities: list[model.OverdueActivity]
    dead: list[model.WorkerRow]
    next_at: int | None

    @classmethod
    def of(cls, lost: _Rows, timeouts: _Rows, workers: Sequence[model.WorkerRow], now: int, limit: int) -> "Overdue":
        """What to tell of activities that are lost, of deadlines, soonest first, and of all workers.

        Of the first two up to one more than `limit`: it says that there are more, or when the next one is due.
        """
        room = max(0, limit - len(lost))
        late = [row for row in timeouts[:room] if row.timeout_at is not None and row.timeout_at <= now]
        instants = [worker.lease_until for worker in workers if worker.lease_until > now]
        instants += [row.timeout_at for row in timeouts[len(late) : room + 1][:1] if row.timeout_at is not None]
        return cls(
            [model.OverdueActivity(row, lost=True) for row in lost[:limit]]
            + [model.OverdueActivity(row, lost=False) for row in late],
            [worker for worker in workers if worker.lease_until <= now],
            now if len(lost) > limit else min(instants, default=None),
        )


class Pending(msgspec.Struct, frozen=True, gc=False):
    """What an open run waits for: its activities and timers in order of event id, its unread messages."""

    activities: list[model.ActivityRow]
    timers: list[model.TimerRow]
    messages: list[model.Message]


class Store(Protocol):
    """One database. Engines and clients close a store that they opened from a URL, never one that was passed in."""

    @property
    def url(self) -> str:
        """Where it is, for people; no passwords."""

    def now(self) -> int:
        """The deciding clock, in microseconds; never decreasing."""

    async def open(self) -> None:
        """Connect, check the database and bring the schema up to date. Idempotent; other methods call it if need be."""

    async def close(self) -> None:
        """Finish what was accepted and let go of all resources. Idempotent."""

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        """Apply each transition whole or not at all, in order, in one transaction that is durable on return."""

    async def transact(self, work: Callable[[Any], Awaitable[Transition]]) -> Result:
        """Run `work` inside a transaction of its own, then apply the transition that it returns, all in one commit.

        `work` gets a connection on which it may write rows of the user's; it cannot end the transaction. Everything is
        undone when `work` raises, when the transition conflicts, and when one of its messages was not delivered (its
        run is closed, or its key was used): then the result is a `Conflict`. Raises StoreError in a store that has no
        tables of the user's.
        """

    async def commit_within(self, connection: Any, transition: Transition) -> Result:
        """Apply a transition in the open transaction of a connection of the user's, who then commits or rolls back.

        Raises StoreError for a connection that this store cannot write through, with the reason.
        """

    async def claim_runs(
        self, worker: str, claims: Sequence[str], types: Collection[str], suspects: int = 1
    ) -> Taken[model.ClaimedRun]:
        """Take up to `len(claims)` runs that are ready and of these kinds (`RunRow.kind`), longest ready first.

        Each gets one of `claims` as its token. At most `suspects` of them have `crashes` > 0 (their worker died while
        it held them), so that one run that kills its process cannot drag healthy ones into quarantine. Also taken,
        whatever the type: runs with a request to terminate; they count as ready at 0.
        """

    async def claim_activities(
        self, worker: str, claims: Sequence[str], names: Collection[str], queues: Collection[str]
    ) -> Taken[model.ActivityRow]:
        """Take up to `len(claims)` unclaimed activities that are due, longest due first.

        Only those of these names on these queues. An attempt begins with the claim, so its deadlines do, too: the rows
        are stored and given as `derecho.journal.deadlines.claimed` says.
        """

    async def attempts(self, places: Sequence[tuple[str, int]]) -> list[model.AttemptState]:
        """How the activities with these run ids and event ids stand; those that have their outcome are left out."""

    async def due_timers(self, limit: int) -> DueTimers:
        """Look at timers that are due; takes nothing (a look that deleted would lose timers in a crash)."""

    async def overdue(self, limit: int) -> Overdue:
        """Look at what the timeout worker must judge; takes nothing."""

    async def load(self, run_ids: Collection[str]) -> dict[str, list[HistoryRow]]:
        """The history rows of each of these runs, in order; empty for a run that has none."""

    async def get_run(self, run_id: str) -> model.RunRow | None: ...

    async def find_run(self, workflow_id: str) -> model.RunRow | None:
        """The newest run of a workflow id: the open one if there is one."""

    async def closed(self, run_ids: Collection[str]) -> list[model.RunRow]:
        """Those of these runs that are closed."""

    async def children(self, run_id: str) -> list[model.RunRow]:
        """The open runs that this run started as children."""

    async def pending(self, run_id: str) -> Pending: ...

    async def list_runs(self, where: model.RunFilter) -> list[model.RunRow]:
        """One page of runs, newest start first, ties by run id."""

    async def workers(self) -> list[model.WorkerRow]:
        """Engines whose lease has not run out."""

    def seen(self, topic: model.Topic) -> int:
        """A mark for `wait`: take it, look, and wait with it; nothing that happens in between is missed."""

    def hint(self, topic: model.Topic) -> None:
        """Wake those who wait for this topic in this process."""

    async def wait(self, topic: model.Topic, seen: int, timeout: float) -> None:
        """Return when something of this topic may have changed since `seen`, or after `timeout` seconds: a hint."""
