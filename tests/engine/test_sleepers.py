"""Runs that wait take no room from runs that work, and what is not in memory goes on just as well."""

import asyncio
from typing import Any

import pytest

import derecho
from derecho import Context, Signal, Store
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually

go = Signal("go", int)


class OutOfStock(Exception):
    def __init__(self, sku: str, left: int) -> None:
        super().__init__(sku)
        self.left = left


@derecho.activity
async def double(number: int) -> int:
    return 2 * number


@derecho.activity(retry=derecho.RetryPolicy.none())
async def reserve(sku: str) -> None:
    raise OutOfStock(sku, 3)


@derecho.workflow
async def sleeper(ctx: Context, number: int) -> int:
    first = await double.execute(ctx, number)
    await ctx.sleep(60)
    second = await double.execute(ctx, first)
    return second + await ctx.signals(go).receive()


@pytest.mark.parametrize("cache_size", [0, 1, 7, 1_000])
async def test_a_full_cache_stops_no_run(store: Store, clock: StandingClock, cache_size: int) -> None:
    async def asleep() -> bool:
        rows = [await store.find_run(f"w{n}") for n in range(30)]
        return all(row is not None and row.tasks == 2 and row.claim is None for row in rows)

    async with engine_of(store, sleeper, double, cache_size=cache_size) as engine:
        handles = [await engine.client.start(sleeper.bind(n), id=f"w{n}") for n in range(30)]
        await eventually(asleep)
        clock.advance(60)
        await asyncio.gather(*(handle.signal(go, n) for n, handle in enumerate(handles)))
        results = await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    assert results == [5 * n for n in range(30)]


async def test_sleepers_leave_memory_and_workers_stay(store: Store) -> None:
    async with engine_of(store, sleeper, double, cache_size=3) as engine:
        for n in range(20):
            await engine.client.start(sleeper.bind(n), id=f"w{n}")
        await eventually(lambda: len(engine.workflows.runs) <= 3)


@derecho.workflow
async def remembers(ctx: Context) -> str:
    """Everything that a workflow may have seen, looked at again after it was taken out of memory."""
    seen: list[Any] = [ctx.random.random(), ctx.uuid4(), ctx.now(), ctx.side_effect(lambda: id(ctx))]
    try:
        await reserve.execute(ctx, "kite")
    except OutOfStock as exc:
        cause: Any = exc.__cause__
        seen += [exc.args, exc.left, type(cause), cause.activity, cause.attempts]
    before = str(seen)
    await ctx.sleep(60)
    drawn = ctx.random.random()
    await ctx.sleep(60)
    return f"{before == str(seen)} {seen[4:]} {drawn}"


async def run_with(store: Store, clock: StandingClock, cache_size: int) -> tuple[str, list[dict[str, Any]]]:
    async def sleeps(timers: int) -> bool:
        row = await store.find_run("w")
        assert row is not None
        events = [event["type"] for event in await engine.client.get(remembers, "w").history()]
        return row.claim is None and events.count("timer_scheduled") == timers

    async with engine_of(store, remembers, reserve, cache_size=cache_size) as engine:
        handle = await engine.client.start(remembers.bind(), id="w")
        for timers in (1, 2):
            await eventually(lambda timers=timers: sleeps(timers))
            clock.advance(60)
        return await handle.result(timeout=20), list(await handle.history())


async def test_a_cold_run_sees_what_a_warm_one_saw(store: Store, clock: StandingClock) -> None:
    for cache_size in (0, 1_000):
        result, history = await run_with(store, clock, cache_size)
        assert result.startswith("True [('kite',), 3, <class 'derecho.errors.ActivityFailed'>, 'reserve', 1]")
        derecho.replay(remembers, await derecho.Client(store).get(remembers, "w").history())
        assert [event["type"] for event in history].count("side_effect_recorded") == 1


async def test_a_shutdown_is_not_the_end_of_a_run(store: Store, clock: StandingClock) -> None:
    ends: list[str] = []

    @derecho.workflow
    async def tidies(ctx: Context) -> str:
        try:
            await ctx.sleep(60)
            return "slept"
        finally:
            await double.execute(ctx, 1)
            ends.append("tidied")

    async def asleep() -> bool:
        row = await store.find_run("w")
        return row is not None and row.tasks == 1 and row.claim is None

    async with engine_of(store, tidies, double) as engine:
        handle = await engine.client.start(tidies.bind(), id="w")
        await eventually(asleep)
        before = len(await handle.history())
    assert (ends, len(await derecho.Client(store).get(tidies, "w").history())) == ([], before)
    clock.advance(60)
    async with engine_of(store, tidies, double) as engine:
        assert await engine.client.get(tidies, "w").result(timeout=20) == "slept"
    assert ends == ["tidied"]
