"""An engine on a store whose time stands still, and what a test asks about its runs."""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from derecho import ActivityDefinition, Engine, Handle, Store, WorkflowDefinition, replay
from derecho.clock import Duration
from derecho.journal.model import RunRow
from derecho.journal.store import Pending
from tests.support.clocks import StandingClock
from tests.support.world import eventually

WEEK = timedelta(days=7)


class Flows:
    """One store and its clock. Time moves by `advance` alone, so nothing here depends on how fast the machine is."""

    def __init__(self, store: Store, clock: StandingClock) -> None:
        self.store = store
        self.clock = clock
        self.calls: list[Any] = []
        """What activities and workflows noted, in order."""

    def engine(self, *definitions: WorkflowDefinition | ActivityDefinition, **options: Any) -> Engine:
        """A new engine that serves these; `async with` it."""
        options.setdefault("shutdown_timeout", 0.0)
        return Engine(
            self.store,
            workflows=[item for item in definitions if isinstance(item, WorkflowDefinition)],
            activities=[item for item in definitions if isinstance(item, ActivityDefinition)],
            **options,
        )

    async def waiting(self, id: str) -> RunRow:
        """The open run of a workflow id, once its code waits for something from outside."""

        async def waits() -> RunRow | None:
            row = await self.store.find_run(id)
            assert row is None or row.is_open, f"{id} has closed as {row and row.status}: {row and row.outcome}"
            assert row is None or row.status != "blocked", row.blocked_reason
            if row is None or row.tasks == 0 or row.claim is not None or row.ready_at is not None:
                return None
            now, timers = self.clock.now(), (await self.store.pending(row.run_id)).timers
            if any(timer.fire_at <= now for timer in timers) or await self.store.find_run(id) != row:
                return None  # or two looks that do not fit together: a timer fired between them
            return row

        found = await self.until(waits)
        assert isinstance(found, RunRow)
        return found

    async def blocked(self, id: str) -> str:
        """Why a run is blocked, once it is."""

        async def reason() -> str | None:
            row = await self.store.find_run(id)
            return row.blocked_reason if row is not None and row.status == "blocked" else None

        return str(await self.until(reason))

    async def until(self, check: Callable[[], Any]) -> Any:
        """What `check` gives, or what it gives when awaited, as soon as it is true."""
        return await eventually(check)

    async def recorded(self, handle: Handle[Any], kind: str, count: int = 1) -> None:
        """Return when so many events of a kind stand in the history."""

        async def stand() -> bool:
            return len(await self.events(handle, kind)) >= count

        await self.until(stand)

    async def pending(self, id: str) -> Pending:
        row = await self.store.find_run(id)
        assert row is not None
        return await self.store.pending(row.run_id)

    async def advance(self, duration: Duration, *ids: str) -> None:
        """Move the clock once these runs wait."""
        for id in ids:
            await self.waiting(id)
        self.clock.advance(duration)

    async def events(self, handle: Handle[Any], *kinds: str) -> list[dict[str, Any]]:
        """The recorded events of a run, or those of some kinds."""
        return [event for event in await handle.history() if not kinds or event["type"] in kinds]

    async def check_replay(self, handle: Handle[Any], workflow: WorkflowDefinition) -> None:
        """The recorded history leads today's code to the same commands."""
        replay(workflow, await handle.history())


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def in_order(wanted: Sequence[str], found: Sequence[str]) -> bool:
    """Whether `wanted` stands in `found`, in this order, whatever stands between."""
    left = deque(wanted)
    for item in found:
        if left and item == left[0]:
            left.popleft()
    return not left
