"""After a lost answer an engine gives back what nobody knows of, and nothing that it has begun."""

import asyncio
from collections.abc import Sequence
from typing import Any

import derecho
from derecho import Context, Signal, Store
from derecho.errors import StoreUnavailable, WorkflowNotFound
from derecho.journal.changes import Advance, FinishActivity, ScheduleActivity, Transition
from derecho.journal.store import Taken
from tests.support.world import engine_of, eventually
from tests.support.wrapped import wrapped

word = Signal("word", str)
began: list[int] = []
holds: list[asyncio.Event] = []


@derecho.activity
async def held() -> int:
    began.append(derecho.current_activity().attempt)
    await holds[-1].wait()
    return len(began)


@derecho.workflow
async def ended(ctx: Context) -> None: ...


@derecho.workflow
async def tells_the_dead(ctx: Context) -> int:
    await ctx.step("first", lambda: asyncio.sleep(0))  # so that its start is not part of it
    told = asyncio.ensure_future(ctx.signal("ended", word, "hello"))
    result = await held.execute(ctx)
    try:
        await told
    except WorkflowNotFound:
        return result
    raise ValueError("the dead have heard")


def schedules(transitions: Sequence[Transition]) -> bool:
    return any(isinstance(change, ScheduleActivity) for each in transitions for change in each)


async def test_an_attempt_that_began_with_the_second_sending_is_not_handed_back(store: Store) -> None:
    """The first sending did nothing, which nobody knew; the second took effect, but for a message to a closed run."""
    began.clear()
    holds.append(asyncio.Event())
    lost = 0

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        nonlocal lost
        if schedules(transitions) and not lost:
            lost += 1
            raise StoreUnavailable("it is not known whether this was done", outcome="unknown")
        return await original(transitions)

    async with engine_of(wrapped(store, commit=commit), ended, tells_the_dead, held, lease=60) as engine:
        await engine.client.run(ended.bind(), id="ended")
        handle = await engine.client.start(tells_the_dead.bind())
        await eventually(lambda: is_held(store, handle.run_id))
        for _ in range(3):  # what would be handed back is claimed again at the next look
            store.hint("activities")
            await engine.committer.flush()
            await asyncio.sleep(0.02)
        holds[-1].set()
        assert await handle.result(timeout=20) == 1
    assert (lost, began) == (1, [1])


async def is_held(store: Store, run_id: str) -> bool:
    return bool(began) and any(row.claim for row in (await store.pending(run_id)).activities)


@derecho.workflow
async def begins_late(ctx: Context) -> int:
    return await held.execute(ctx)


async def test_nothing_begins_in_an_engine_that_stops(store: Store) -> None:
    """The answer of the commit comes while it drains: the activity goes back, and begins once, elsewhere."""
    began.clear()
    holds.append(asyncio.Event())
    holds[-1].set()
    answered, written = asyncio.Event(), asyncio.Event()

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        results = await original(transitions)
        if schedules(transitions):
            written.set()
            await answered.wait()
        return results

    async def claim_activities(original: Any, *args: Any) -> Any:
        return Taken([], None)  # at once, so that no slot is held for a question when the activity is scheduled

    slow = wrapped(store, commit=commit, claim_activities=claim_activities)
    engine = engine_of(slow, begins_late, held, shutdown_timeout=5)
    await engine.__aenter__()
    starting = asyncio.create_task(engine.client.start(begins_late.bind(), id="w"))
    await written.wait()
    stopping = asyncio.create_task(engine._stop())
    await eventually(lambda: engine.activities.draining)
    answered.set()
    await stopping
    await asyncio.wait({starting}, timeout=20)
    assert began == []
    async with engine_of(store, begins_late, held) as other:
        assert await other.client.get(begins_late, "w").result(timeout=20) == 1
    assert began == [1]


@derecho.workflow
async def adds_one(ctx: Context) -> int:
    begun = await counts.execute(ctx)

    async def add() -> int:
        return begun + 1

    return await ctx.step("add", add)


@derecho.activity
async def counts() -> int:
    return 1


async def test_a_turn_that_ends_an_activity_and_begins_a_step_goes_on_after_its_answer_was_lost(store: Store) -> None:
    """Sent again it conflicts at the activity, and the claim that it took is nobody's."""
    lost: list[Transition] = []

    async def forgetful(commit: Any, transitions: Sequence[Transition]) -> Any:
        results = await commit(transitions)
        for transition in transitions:
            kinds = {type(change) for change in transition}
            if {FinishActivity, Advance} <= kinds and not lost:
                lost.append(transition)
                raise StoreUnavailable("the answer was lost", outcome="unknown")
        return results

    async with engine_of(wrapped(store, commit=forgetful), adds_one, counts) as engine:
        assert await engine.client.run(adds_one.bind()) == 2
    assert len(lost) == 1
