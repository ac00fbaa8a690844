"""What the tests of the suite are written with: rows with sensible defaults, a world around a store, and a look at all.

Ids are short and plain (`run-1`, `order-1`), instants come from a `VirtualClock`, and tokens say what they stand for.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from derecho.clock import SECOND, Clock
from derecho.journal.changes import (
    Advance,
    Change,
    Conflict,
    CreateRun,
    Deliver,
    NewMessage,
    Receipt,
    RegisterWorker,
    Result,
    ScheduleActivity,
    ScheduleTimer,
)
from derecho.journal.model import ActivityRow, ClaimedRun, Head, RunFilter, RunRow, TimerRow, WorkerRow
from derecho.journal.store import Store
from derecho.journal.wire import HistoryRow, chain
from derecho.testing.clock import VirtualClock

StoreFactory: TypeAlias = Callable[[Clock], Store]
"""Makes a new, empty store that takes its time from a clock."""

MINUTE = 60 * SECOND
WORKER, OTHER_WORKER = "worker-1", "worker-2"
COMPLETED = '{"type":"workflow_completed"}'
ACTIVITY = '{"type":"activity_scheduled","name":"charge","start_to_close":30000000}'


def run_row(number: int = 1, **fields: Any) -> RunRow:
    """`run-1` of `order-1`, an open run that nobody has claimed; `fields` replace the defaults."""
    plain = RunRow(f"run-{number}", f"order-{number}", "order", "default", "running", 1, f"chain-{number}", 0)
    return replace(plain, **fields)


def message(text: str = "hello", key: str | None = None) -> NewMessage:
    return NewMessage(msgspec.json.encode({"type": "signal_received", "name": text}).decode(), key)


def history_row(seen: Head, data: str = "[]") -> HistoryRow:
    """The workflow task that follows `seen`."""
    task = seen.tasks + 1
    return HistoryRow(task, seen.events + 1, task, data, chain(seen.digest, task, task, data))


def head_after(change: Advance) -> Head:
    return Head(change.row.task, change.events, change.row.digest)


def advance(run_id: str = "run-1", seen: Head | None = None, **fields: Any) -> Advance:
    """The next workflow task of a run, with two events; `data` is what its history row holds."""
    seen = seen or Head()
    row = history_row(seen, fields.pop("data", "[]"))
    return Advance(run_id, seen, row, seen.events + 2, **fields)


def activity_row(activity: int = 5, run_id: str = "run-1", **fields: Any) -> ActivityRow:
    """An activity that is unclaimed and due since for ever."""
    plain = ActivityRow(run_id, activity, "order-1", "order", "charge", "default", ACTIVITY, scheduled_at=1, due_at=1)
    return replace(plain, **fields)


class World:
    """A store with its clock, and the few things that most tests do to it."""

    def __init__(self, store: Store, clock: VirtualClock) -> None:
        self.store = store
        self.clock = clock
        self._tokens = 0

    @property
    def now(self) -> int:
        return self.store.now()

    async def commit(self, *changes: Change) -> Result:
        """One transition, one commit."""
        (result,) = await self.store.commit([changes])
        return result

    async def do(self, *changes: Change) -> Receipt:
        """Commit a transition that must take effect."""
        result = await self.commit(*changes)
        assert isinstance(result, Receipt), f"{changes} should have taken effect, but: {result}"
        return result

    async def all_at_once(self, *changes: Change) -> None:
        """Commit each change by itself, in one batch; all must take effect."""
        for change, result in zip(changes, await self.store.commit([(change,) for change in changes]), strict=True):
            assert isinstance(result, Receipt), f"{change} should have taken effect, but: {result}"

    async def refused(self, *changes: Change) -> Conflict:
        """Commit a transition that must conflict."""
        result = await self.commit(*changes)
        assert isinstance(result, Conflict), f"{changes} should have conflicted, but: {result}"
        return result

    async def register(self, *workers: str, lease: int = MINUTE) -> None:
        for worker in workers or (WORKER,):
            await self.do(RegisterWorker(WorkerRow(worker, "test", self.now + lease, ["workflow:order"])))

    async def start(self, number: int = 1, *messages: NewMessage, **fields: Any) -> RunRow:
        """Create a run with one message, or with these."""
        row = run_row(number, **{"started_at": self.now, **fields})
        await self.do(CreateRun(row, messages or (message("start"),)))
        return await self.run(row.run_id)

    async def run(self, run_id: str = "run-1") -> RunRow:
        found = await self.store.get_run(run_id)
        assert found is not None, f"{run_id} is gone"
        return found

    async def claim(self, *types: str, worker: str = WORKER, limit: int = 10) -> list[ClaimedRun]:
        return (await self.store.claim_runs(worker, self.tokens(limit), types or ("order",))).rows

    async def claim_activities(self, *names: str, worker: str = WORKER, limit: int = 10) -> list[ActivityRow]:
        taken = await self.store.claim_activities(worker, self.tokens(limit), names or ("charge",), ("default",))
        return taken.rows

    def tokens(self, count: int) -> list[str]:
        self._tokens += count
        return [f"claim-{number}" for number in range(self._tokens - count + 1, self._tokens + 1)]

    async def sleeping(self, number: int = 1, **fields: Any) -> RunRow:
        """A run that has done its first workflow task and waits."""
        row = await self.start(number, **fields)
        await self.do(advance(row.run_id, consume_to=1))
        return await self.run(row.run_id)

    async def claimed(self, number: int = 1, **fields: Any) -> RunRow:
        """A run that `WORKER` holds, with an unread message."""
        await self.register()
        row = await self.sleeping(number, **fields)
        await self.do(Deliver(message("work"), run_id=row.run_id))
        (taken,) = await self.claim(row.workflow_type)
        assert taken.run.run_id == row.run_id
        return taken.run

    async def closed(self, number: int = 1, status: str = "completed", **fields: Any) -> RunRow:
        row = await self.start(number, **fields)
        await self.do(advance(row.run_id, status=status, outcome=COMPLETED))
        return await self.run(row.run_id)

    async def activity(self, activity: int = 5, run_id: str = "run-1", **fields: Any) -> ActivityRow:
        """Schedule an activity; it is claimed when `fields` say so."""
        row = activity_row(activity, run_id, **fields)
        await self.do(ScheduleActivity(row))
        return row

    async def running_activity(self, activity: int = 5, run_id: str = "run-1", **fields: Any) -> ActivityRow:
        """An activity that `WORKER` has claimed."""
        await self.register()
        return await self.activity(
            activity, run_id, **{"claim": f"claim-of-{activity}", "worker": WORKER, "started_at": self.now, **fields}
        )

    async def timer(self, timer: int = 7, run_id: str = "run-1", *, after: int = MINUTE) -> TimerRow:
        row = TimerRow(run_id, timer, self.now + after)
        await self.do(ScheduleTimer(row))
        return row

    async def activities(self, run_id: str = "run-1") -> list[ActivityRow]:
        return (await self.store.pending(run_id)).activities

    async def inbox(self, run_id: str = "run-1") -> list[str]:
        """The unread messages of a run."""
        return [unread.data for unread in (await self.store.pending(run_id)).messages]


async def everything(store: Store) -> dict[str, Any]:
    """All that can be seen of a store, in a form that can be compared with another's."""
    runs = await store.list_runs(RunFilter(limit=1_000))
    seen: dict[str, Any] = {
        "runs": runs,
        "timers": await store.due_timers(1_000),
        "overdue": await store.overdue(1_000),
        "workers": await store.workers(),
    }
    histories = await store.load([run.run_id for run in runs])
    for run in runs:
        seen[run.run_id] = (
            await store.get_run(run.run_id),
            histories[run.run_id],
            await store.pending(run.run_id),
            await store.children(run.run_id),
        )
        seen[run.workflow_id] = await store.find_run(run.workflow_id)
    return seen
