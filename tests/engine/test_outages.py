"""A store that fails, once or for long, ends no engine and loses no work."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import derecho
from derecho import Context, Signal, Store, StoreError, StoreUnavailable
from derecho.committer import Committer
from derecho.journal.changes import CreateRun, Receipt
from derecho.testing.conformance.kit import run_row
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually
from tests.support.wrapped import Weather, wrapped

go = Signal("go", int)


@derecho.activity
async def double(number: int) -> int:
    return 2 * number


@derecho.workflow
async def order(ctx: Context, number: int) -> int:
    first = await double.execute(ctx, number)
    await ctx.sleep(60)
    return first + await ctx.signals(go).receive()


CALLS = ["commit", "claim_runs", "claim_activities", "due_timers", "overdue", "load"]


async def waits(store: Store, id: str, tasks: int) -> bool:
    row = await store.find_run(id)
    return row is not None and row.tasks == tasks and row.claim is None


@pytest.mark.parametrize("failing", [*CALLS, "all"])
async def test_work_goes_on_when_the_store_is_back(store: Store, clock: StandingClock, failing: str) -> None:
    weather = Weather(StoreUnavailable("the database is away"))
    methods = CALLS if failing == "all" else [failing]
    stormy = wrapped(store, **dict.fromkeys(methods, weather))
    async with engine_of(stormy, order, double, cache_size=0) as engine, derecho.Client(store) as client:
        handle = await engine.client.start(order.bind(1), id="w")
        await eventually(lambda: waits(store, "w", 2))
        weather.bad = True
        clock.advance(60)
        other = await client.start(order.bind(2), id="other")
        await client.get(order, "w").signal(go, 7)
        await eventually(lambda: weather.struck > 1)
        weather.bad = False
        assert await handle.result(timeout=30) == 9
        await eventually(lambda: waits(store, "other", 2))
        clock.advance(60)
        await other.signal(go, 8)
        assert await other.result(timeout=30) == 12


async def test_an_engine_starts_as_soon_as_the_store_is_there(store: Store) -> None:
    weather = Weather(StoreUnavailable("the database is away"))
    weather.bad = True
    starting = asyncio.create_task(engine_of(wrapped(store, commit=weather), order, double).__aenter__())
    await eventually(lambda: weather.struck > 1)
    weather.bad = False
    engine = await starting
    await engine.client.start(order.bind(1), id="w")
    await eventually(lambda: waits(store, "w", 2))
    await engine.__aexit__(None, None, None)


@pytest.mark.parametrize("failing", [["commit"], CALLS], ids=["writing", "all"])
async def test_an_outage_is_told_once_and_its_end_once(
    store: Store, failing: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    weather = Weather(StoreUnavailable("the database is away"))
    async with engine_of(wrapped(store, **dict.fromkeys(failing, weather)), order, double) as engine:
        weather.bad = True
        engine.submit((), lambda _: None)
        await eventually(lambda: weather.struck > 5 * len(failing))
        weather.bad = False
        await eventually(lambda: "is back after" in caplog.text)
    [away, back] = [record.getMessage() for record in caplog.records if record.name == "derecho.outages"]
    assert "until the store is back: the database is away" in away
    assert store.url in back


async def test_a_lost_answer_starts_a_run_once_all_the_same(store: Store) -> None:
    answers: list[int] = []

    async def lossy(original: Callable[..., Any], *args: Any) -> Any:
        result = await original(*args)
        answers.append(1)
        if len(answers) == 1:
            raise StoreUnavailable("the answer was lost", outcome="unknown")
        return result

    async with derecho.Client(wrapped(store, commit=lossy)) as client:
        handle = await client.start(order.bind(1), id="w", signals=[(go, 1)])
        assert len((await store.pending(handle.run_id)).messages) == 2
        await handle.signal(go, 2, key="once")
    assert len(answers) == 3


async def refuses(original: Callable[..., Any], transitions: Any) -> Any:
    if any("arsenic" in repr(change) for transition in transitions for change in transition):
        raise StoreError("this cannot be stored")
    return await original(transitions)


async def test_what_the_store_refuses_for_good_takes_nothing_with_it_that_shares_its_commit(store: Store) -> None:
    committer = Committer(wrapped(store, commit=refuses))
    starts = [CreateRun(run_row(1), ()), CreateRun(run_row(2, workflow_id="arsenic"), ()), CreateRun(run_row(3), ())]
    results = await asyncio.gather(*(committer.commit((start,)) for start in starts), return_exceptions=True)
    assert [type(result) for result in results] == [Receipt, StoreError, Receipt]


async def test_a_commit_that_the_store_refuses_for_good_blocks_its_run_alone(store: Store) -> None:
    @derecho.workflow
    async def poisons(ctx: Context) -> str:
        return ctx.side_effect(lambda: "arsenic")

    async with engine_of(wrapped(store, commit=refuses), poisons, order, double) as engine:
        handle = await engine.client.start(poisons.bind())
        healthy = await engine.client.start(order.bind(1), id="w")
        await eventually(lambda: waits(store, "w", 2))
        reason = await eventually(lambda: blocked_reason(handle))
        assert "this cannot be stored" in reason
        assert (await healthy.describe()).status == "running"


async def blocked_reason(handle: derecho.Handle[Any]) -> str | None:
    return (await handle.describe()).blocked_reason
