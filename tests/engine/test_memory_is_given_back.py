"""What has ended is freed at once: a busy engine must not live on what the garbage collector finds later."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

import derecho
from derecho import Context, Engine
from derecho.activity_context import current_activity
from tests.support.world import eventually

attempts: list[weakref.ref[object]] = []


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    attempts.clear()
    yield
    gc.enable()


@derecho.activity
async def watched(number: int) -> int:
    attempts.append(weakref.ref(current_activity()))
    return number


@derecho.activity
def watched_in_thread(number: int) -> int:
    attempts.append(weakref.ref(current_activity()))
    return number


@derecho.workflow
async def busy(ctx: Context) -> int:
    async def nothing() -> int:
        return 1

    total = sum(await asyncio.gather(watched.execute(ctx, 1), watched_in_thread.execute(ctx, 1)))
    ctx.log.info("half way, %s", ctx.random.random())
    await ctx.step("nothing", nothing)
    return total + await ctx.go(later)


async def later(ctx: Context) -> int:
    await asyncio.sleep(0.001)
    return await watched.execute(ctx, 1)


@derecho.workflow
async def asleep(ctx: Context) -> int:
    await ctx.sleep(1_000)
    return 1


async def live_execution(engine: Engine, run_id: str) -> weakref.ref[object]:
    def look() -> weakref.ref[object] | None:
        run = engine.workflows.runs.get(run_id)
        return None if run is None or run.execution is None else weakref.ref(run.execution)

    found = await eventually(look)
    assert found is not None
    return found


async def test_a_run_and_its_attempts_are_freed_when_they_end() -> None:
    async with Engine("memory:", workflows=[busy], activities=[watched, watched_in_thread]) as engine:
        handle = await engine.client.start(busy.bind())
        execution = await live_execution(engine, handle.run_id)
        assert await handle.result(10) == 3
        await eventually(lambda: execution() is None)
        assert len(attempts) == 3
        await eventually(lambda: all(attempt() is None for attempt in attempts))


async def test_a_run_that_is_evicted_is_freed() -> None:
    async with Engine("memory:", workflows=[asleep], cache_size=1) as engine:
        handle = await engine.client.start(asleep.bind())
        execution = await live_execution(engine, handle.run_id)
        for _ in range(3):
            await engine.client.start(asleep.bind())
        await eventually(lambda: execution() is None)
