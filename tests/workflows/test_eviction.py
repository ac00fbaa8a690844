"""Taking a run out of memory: its clean-up code does not act, nothing of it runs elsewhere, and it goes on the same."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from derecho import Context, Signal, WorkflowNotFound, activity, workflow
from tests.support.flows import Flows

go = Signal("go", int)
acts: list[str] = []


@activity
async def act(what: str) -> str:
    acts.append(what)
    return what


async def awaits_in_finally(ctx: Context) -> str:
    try:
        await ctx.signals(go).receive()
    finally:
        await act.execute(ctx, "finally")
        await ctx.sleep(0)
    return "done"


async def catches_everything_in_a_loop(ctx: Context) -> str:
    for _ in range(1_000):
        try:
            await ctx.signals(go).receive()
            break
        except BaseException:  # this is the point
            act.execute(ctx, "caught")
    await act.execute(ctx, "after")
    return "done"


async def suppresses_everything(ctx: Context) -> str:
    with contextlib.suppress(BaseException):
        await ctx.signals(go).receive()
    await act.execute(ctx, "after")
    return "done"


async def uses_async_generators(ctx: Context) -> str:
    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield await ctx.signals(go).receive()
        finally:
            await act.execute(ctx, "generator")
            await act.execute(ctx, "generator again")

    first = numbers()
    async for _ in first:
        break
    kept.append(first)
    async for _ in numbers():
        break
    await ctx.signals(go).receive()
    await first.aclose()  # type: ignore[attr-defined]  # it is an async generator
    kept.remove(first)
    return "done"


async def has_a_finalizer(ctx: Context) -> str:
    class Held:
        def __del__(self) -> None:
            with contextlib.suppress(BaseException):
                if not finished:
                    act.execute(ctx, "__del__")

    finished: list[bool] = []
    held = Held()
    await ctx.signals(go).receive()
    finished.append(True)
    del held
    await act.execute(ctx, "after")
    return "done"


async def is_part_of_a_cycle(ctx: Context) -> str:
    cycle: list[Any] = []

    async def waits(ctx: Context) -> None:
        mine = cycle
        try:
            await ctx.signals(go).receive()
        finally:
            await act.execute(ctx, f"in a cycle of {len(mine)}")

    fiber = ctx.go(waits)
    cycle.append([cycle, fiber])
    await fiber
    return "done"


async def manages_contexts(ctx: Context) -> str:
    @contextlib.contextmanager
    def managed() -> Iterator[None]:
        try:
            yield
        finally:
            act.execute(ctx, "context manager")

    with managed():
        await ctx.signals(go).receive()
    await act.execute(ctx, "after")
    return "done"


async def holds_a_shield(ctx: Context) -> str:
    async with ctx.shield(60), ctx.saga() as saga:
        saga.compensate(act.bind("compensation"))
        await ctx.signals(go).receive()
    await act.execute(ctx, "after")
    return "done"


async def groups_fibers(ctx: Context) -> str:
    async def part(n: int) -> None:
        try:
            await ctx.signals(go).receive() if n == 0 else await ctx.sleep(3600)
        finally:
            act.execute(ctx, f"part {n}")

    async with asyncio.TaskGroup() as group:
        fibers = [group.create_task(part(n)) for n in range(3)]
        await fibers[0]
        for fiber in fibers[1:]:
            fiber.cancel()
    await act.execute(ctx, "after")
    return "done"


SHAPES: list[Callable[[Context], Awaitable[str]]] = [
    awaits_in_finally,
    catches_everything_in_a_loop,
    suppresses_everything,
    uses_async_generators,
    has_a_finalizer,
    is_part_of_a_cycle,
    manages_contexts,
    holds_a_shield,
    groups_fibers,
]
kept: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> Iterator[None]:
    acts.clear()
    yield
    kept.clear()
    gc.collect()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
@pytest.mark.parametrize("how", ["evicted", "stopped"])
async def test_clean_up_code_does_not_act_when_a_run_leaves_memory(flows: Flows, shape: Any, how: str) -> None:
    flow = workflow(shape.__name__)(shape)
    async with flows.engine(flow, act, cache_size=0 if how == "evicted" else 100) as engine:
        handle = await engine.client.start(flow.bind(), id="w")
        await flows.waiting("w")
        before = len(await handle.history())
        if how == "evicted":
            await flows.until(lambda: len(engine.workflows.runs) == 0)
            gc.collect()
            assert len(await handle.history()) == before
            assert acts == []
            for _ in range(3):
                with contextlib.suppress(WorkflowNotFound):  # it has just ended
                    await handle.signal(go, 1)
                    await flows.until(lambda: len(engine.workflows.runs) == 0)
    assert how == "evicted" or acts == []
    async with flows.engine(flow, act) as engine:
        gc.collect()
        handle = engine.client.get(flow, "w")
        while (await handle.describe()).closed_at is None:
            with contextlib.suppress(Exception):
                await handle.signal(go, 1)
        assert await handle.result() == "done"
        await flows.check_replay(handle, flow)
    assert len(acts) == len(await flows.events(handle, "activity_scheduled"))


@workflow
async def sets_a_variable(ctx: Context) -> str:
    try:
        await ctx.signals(go).receive()
    finally:
        acts.append(threading.current_thread().name)
    return "done"


async def test_unwinding_runs_on_the_workflow_thread(flows: Flows) -> None:
    async with flows.engine(sets_a_variable, cache_size=0) as engine:
        await engine.client.start(sets_a_variable.bind(), id="w")
        await flows.until(lambda: acts)
    assert set(acts) == {"derecho-workflows"}


@workflow
async def never_unwinds(ctx: Context) -> None:
    while True:
        with contextlib.suppress(BaseException):
            await ctx.signals(go).receive()


@workflow
async def healthy(ctx: Context) -> str:
    return await act.execute(ctx, "healthy")


async def test_code_that_refuses_to_unwind_is_reported_and_hangs_nothing(flows: Flows, caplog: Any) -> None:
    async with flows.engine(never_unwinds, healthy, act, cache_size=0) as engine:
        await engine.client.start(never_unwinds.bind(), id="w")
        await flows.until(lambda: "refused to be taken down" in caplog.text)
        assert "test_eviction.py" in caplog.text
        assert await engine.client.run(healthy.bind(), id="h") == "healthy"


async def test_many_runs_in_a_cache_of_one_all_end_as_they_should(flows: Flows) -> None:
    async with flows.engine(sets_a_variable, cache_size=1) as engine:
        handles = await engine.client.start_many([(f"w-{n}", sets_a_variable.bind()) for n in range(40)])
        for n in range(40):
            await flows.waiting(f"w-{n}")
        for handle in handles:
            await handle.signal(go, 1)
        assert {await handle.result() for handle in handles} == {"done"}


@workflow
async def leaves_the_process(ctx: Context) -> None:
    raise SystemExit(3)


async def test_a_workflow_that_raises_system_exit_stops_only_itself(flows: Flows) -> None:
    async with flows.engine(leaves_the_process, healthy, act, deadlock_timeout=None) as engine:
        await engine.client.start(leaves_the_process.bind(), id="w")
        assert "SystemExit" in await flows.blocked("w")
        assert await engine.client.run(healthy.bind(), id="h") == "healthy"
