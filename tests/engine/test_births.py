"""A start and its first turn are one commit; whatever stands in the way, a start is acknowledged and none is lost."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

import derecho
from derecho import Client, Context, Store, StoreUnavailable, WorkflowAlreadyRunning
from derecho.engine import births
from derecho.engine.turns import CROWD
from derecho.testing.faults import MODES, FaultyStore
from tests.support.world import engine_of, eventually, quick_hand_over
from tests.support.wrapped import Weather, wrapped

released = threading.Event()
ran: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Code that blocks goes on in the end, so that its thread ends with the test."""
    released.clear()
    ran.clear()
    with quick_hand_over():
        yield
    released.set()


@derecho.activity
async def work(name: str) -> str:
    ran.append(name)
    return f"{name} is done"


@derecho.workflow
async def order(ctx: Context, name: str) -> str:
    return await work.execute(ctx, name)


@derecho.workflow
async def at_once(ctx: Context) -> str:
    return "nothing to do"


@derecho.workflow
async def sleeps(ctx: Context) -> None:
    await ctx.sleep(3_600)


@derecho.workflow
async def spins(ctx: Context) -> str:
    while not released.is_set():
        pass
    return "went on"


@derecho.workflow
async def ponders(ctx: Context) -> str:
    ran.append("pondering")
    while not released.is_set():
        pass
    return "done"


@derecho.workflow
async def slips(ctx: Context) -> None:
    raise AssertionError("a slip of the code")


@derecho.workflow
async def steps(ctx: Context) -> str:
    return await ctx.step("work", work, "step")


async def test_a_start_and_its_first_turn_are_one_commit(store: Store) -> None:
    async with engine_of(store, sleeps) as engine:
        await engine.committer.flush()
        before = engine.committer.transitions
        handle = await engine.client.start(sleeps.bind())
        assert engine.committer.transitions == before + 1
        row = await store.get_run(handle.run_id)
        assert row is not None
        assert (row.tasks, row.inbox_last) == (1, 0)
        assert len((await store.pending(handle.run_id)).timers) == 1


async def test_a_run_may_end_in_the_commit_that_creates_it(store: Store) -> None:
    async with engine_of(store, at_once) as engine:
        await engine.committer.flush()
        before = engine.committer.transitions
        assert await engine.client.run(at_once.bind()) == "nothing to do"
        assert engine.committer.transitions == before + 1


async def test_steps_run_when_the_start_is_known(store: Store) -> None:
    async with engine_of(store, steps) as engine:
        assert await engine.client.run(steps.bind()) == "step is done"
    assert ran == ["step"]


async def test_a_refused_start_has_no_effect(store: Store) -> None:
    open_run = await Client(store).start(sleeps.bind(), id="taken")
    async with engine_of(store, order, work) as engine:  # which does not serve the run that has the id
        with pytest.raises(WorkflowAlreadyRunning):
            await engine.client.start(order.bind("second"), id="taken")
        assert await engine.client.run(order.bind("third")) == "third is done"
        assert engine.workflows.births.under_way == 0
    assert ran == ["third"]
    assert (await Client(store).get(sleeps, "taken").describe()).run_id == open_run.run_id


async def test_starts_are_acknowledged_while_other_code_holds_the_thread(store: Store) -> None:
    async with engine_of(store, order, spins, work, deadlock_timeout=None) as engine:
        stuck = await engine.client.start(spins.bind())
        handles = await asyncio.gather(*(engine.client.start(order.bind(str(number))) for number in range(5)))
        assert ran == []
        released.set()
        assert await stuck.result(timeout=20) == "went on"
        assert [await handle.result(timeout=20) for handle in handles] == [f"{number} is done" for number in range(5)]


async def test_what_a_long_first_turn_has_computed_is_not_thrown_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other starts stop waiting for the thread; its own goes on waiting, or all would be done twice."""
    monkeypatch.setattr(births, "_LONG_PATIENCE", 60)
    async with engine_of(store, order, ponders, work, deadlock_timeout=None) as engine:
        first = asyncio.create_task(engine.client.start(ponders.bind()))
        await eventually(lambda: ran == ["pondering"])
        behind = await engine.client.start(order.bind("behind"))
        assert not first.done()
        released.set()
        assert await (await first).result(timeout=20) == "done"
        assert await behind.result(timeout=20) == "behind is done"
    assert ran == ["pondering", "behind"]


@pytest.mark.parametrize("limit", [0.02, 1.0])
async def test_code_that_blocks_from_the_start_is_blocked_not_lost(store: Store, limit: float) -> None:
    async with engine_of(store, order, spins, work, deadlock_timeout=limit) as engine:
        stuck = await engine.client.start(spins.bind())
        assert await engine.client.run(order.bind("healthy")) == "healthy is done"
        await eventually(lambda: is_blocked(stuck))


async def test_a_slip_in_the_first_turn_blocks_the_run_that_was_acknowledged(store: Store) -> None:
    async with engine_of(store, slips) as engine:
        handle = await engine.client.start(slips.bind())
        await eventually(lambda: is_blocked(handle))


async def is_blocked(handle: derecho.Handle[Any]) -> bool:
    return (await handle.describe()).status == "blocked"


async def test_more_starts_than_there_is_room_for_all_finish(store: Store) -> None:
    async with engine_of(store, order, work) as engine:
        results = await asyncio.gather(*(engine.client.run(order.bind(str(number))) for number in range(250)))
    assert results == [f"{number} is done" for number in range(250)]
    assert sorted(ran, key=int) == [str(number) for number in range(250)]


async def test_a_starter_that_gives_up_while_it_waits_in_line_starts_nothing(store: Store) -> None:
    async with engine_of(store, order, work) as engine:
        starts = [asyncio.create_task(engine.client.start(order.bind(f"{n}"), id=f"w{n}")) for n in range(3 * CROWD)]
        await eventually(lambda: engine.workflows.births.under_way == CROWD)
        for start in starts[2 * CROWD :]:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        assert engine.workflows.births.under_way == 0
        assert len([run async for run in engine.client.list()]) == 2 * CROWD


async def test_starts_in_line_are_told_when_the_engine_stops_before_they_begin(store: Store) -> None:
    weather = Weather(StoreUnavailable("the database is away"))
    async with engine_of(wrapped(store, commit=weather), order, work) as engine:
        weather.bad = True
        starts = [asyncio.create_task(engine.client.start(order.bind(f"{n}"), id=f"w{n}")) for n in range(3 * CROWD)]
        await eventually(lambda: engine.workflows.births.under_way == CROWD)
        weather.bad = False
        await engine.workflows.close(0.0)  # as at the end of a shutdown that could not wait
        told = await asyncio.wait_for(asyncio.gather(*starts, return_exceptions=True), 30)
        there = {run.workflow_id async for run in engine.client.list()}
    in_line = {f"w{n}": outcome for n, outcome in enumerate(told) if isinstance(outcome, StoreUnavailable)}
    assert len(in_line) >= 2 * CROWD, "and those whose first turn was not back yet"
    assert {outcome.outcome for outcome in in_line.values()} == {"not_applied"}
    assert there == {f"w{n}" for n in range(3 * CROWD)} - set(in_line)


async def test_a_starter_that_gives_up_leaves_no_run_half_begun(store: Store) -> None:
    async with engine_of(store, order, work) as engine:
        starts = [asyncio.create_task(engine.client.start(order.bind(f"{n}"), id=f"w{n}")) for n in range(20)]
        await asyncio.sleep(0)
        for start in starts[::2]:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        await eventually(lambda: engine.workflows.births.under_way == 0)
        for start in starts[1::2]:
            await start.result().result(timeout=20)
        runs = [run async for run in engine.client.list()]
        for run in runs:
            await engine.client.get_by_id(run.workflow_id).result(timeout=20)
    assert len(runs) >= 10


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode.startswith("error")])
@pytest.mark.parametrize("definition", [order, steps, at_once])
async def test_a_lost_answer_to_a_start_runs_it_once(store: Store, mode: Any, definition: Any) -> None:
    arguments = ("one",) if definition is order else ()
    faulty = FaultyStore(store, "commit", at=0, mode=mode)
    async with engine_of(cast(Store, faulty), order, steps, at_once, work) as engine:
        await engine.committer.flush()
        faulty.at = faulty.calls + 1
        handle = await engine.client.start(definition.bind(*arguments), id="w")
        assert faulty.fired == 1
        await handle.result(timeout=20)
        assert len([run async for run in engine.client.list()]) == 1
