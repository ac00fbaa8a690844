"""What the tests of activities share: an engine for a while, a workflow that makes one call, a probe that tells."""

import asyncio
from typing import Any

import pytest

import derecho
from derecho import ActivityContext, Engine, Store
from derecho.activity import ActivityDefinition
from derecho.journal import events as ev
from derecho.journal.wire import decode_events
from derecho.workflow import WorkflowDefinition
from tests.support.world import eventually

FOR_EVER = 1e6
"""A lease, in seconds, that no test outlives: tests that move the clock would let others run out."""


class Probe:
    """A resource that attempts write to and wait on. `attempts` are their contexts, the first to begin first."""

    def __init__(self) -> None:
        self.attempts: list[ActivityContext] = []
        self.notes: list[Any] = []
        self.go = asyncio.Event()

    def enter(self) -> ActivityContext:
        """An attempt begins; gives its context."""
        self.attempts.append(derecho.current_activity())
        return self.attempts[-1]

    async def began(self, count: int) -> None:
        await eventually(lambda: len(self.attempts) >= count)


def probe() -> Probe:
    """The probe of the attempt that asks."""
    return derecho.current_activity().resource(Probe)


def engine(store: Store, *definitions: Any, probe: Probe | None = None, **options: Any) -> Engine:
    """An engine with these workflows and activities; tests with a clock of their own want a long lease."""
    options.setdefault("lease", FOR_EVER)
    options.setdefault("shutdown_timeout", 0.05)
    options.setdefault("resources", {Probe: probe or Probe()})
    return Engine(
        store,
        workflows=[item for item in definitions if isinstance(item, WorkflowDefinition)],
        activities=[item for item in definitions if isinstance(item, ActivityDefinition)],
        **options,
    )


def calling(call: derecho.Invocation[Any], **options: Any) -> derecho.Workflow[[], Any]:
    """A workflow that makes one call and returns what it gives."""

    @derecho.workflow("caller")
    async def caller(ctx: derecho.Context) -> Any:
        return await ctx.execute(call, **options)

    return caller


async def failure_of(handle: derecho.Handle[Any]) -> BaseException:
    """What the workflow raised."""
    with pytest.raises(derecho.WorkflowFailed) as caught:
        await handle.result(timeout=20)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


async def outcomes(store: Store, run_id: str) -> list[ev.AnyEvent]:
    """The outcomes of activities in the history of a run."""
    kinds = (ev.ActivityCompleted, ev.ActivityFailed, ev.ActivityTimedOut, ev.ActivityCancelled)
    rows = (await store.load([run_id]))[run_id]
    return [event for row in rows for event in decode_events(row.data) if isinstance(event, kinds)]


async def quiet(seconds: float = 0.05) -> None:
    """Give engines time to do what they should not do."""
    await asyncio.sleep(seconds)
