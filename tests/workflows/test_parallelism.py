"""Fibers: many things at once in one workflow, with asyncio's own words and with `ctx.go` and `ctx.wait_for`."""

import asyncio
from datetime import timedelta
from typing import Any

import anyio
import pytest

from derecho import Context, WorkflowFailed, activity, workflow
from tests.support.flows import Flows, types


@activity
async def double(n: int) -> int:
    return 2 * n


@workflow
async def fibers(ctx: Context, count: int) -> list[int]:
    results: list[int] = []

    async def one(ctx: Context, n: int) -> None:
        results.append(await double.execute(ctx, n))

    for n in range(count):
        ctx.go(one, n)
    assert await ctx.wait_for(lambda: len(results) == count)
    return sorted(results)


async def test_fibers_run_side_by_side_and_a_condition_is_looked_at_when_something_ran(flows: Flows) -> None:
    async with flows.engine(fibers, double) as engine:
        handle = await engine.client.start(fibers.bind(5), id="w")
        assert await handle.result() == [0, 2, 4, 6, 8]
        events = await flows.events(handle, "activity_scheduled", "workflow_task_completed")
        assert types(events)[:6] == ["workflow_task_completed"] + 5 * ["activity_scheduled"]


@workflow
async def hurried(ctx: Context) -> list[bool]:
    flags: list[str] = []

    async def later(ctx: Context) -> None:
        await ctx.sleep(60)
        flags.append("done")

    ctx.go(later)
    return [await ctx.wait_for(lambda: bool(flags), timeout=30), await ctx.wait_for(lambda: bool(flags), timeout=90)]


async def test_wait_for_says_which_came_first_and_leaves_no_timer(flows: Flows) -> None:
    async with flows.engine(hurried) as engine:
        handle = await engine.client.start(hurried.bind(), id="w")
        await flows.advance(30, "w")
        await flows.waiting("w")
        await flows.advance(30, "w")
        assert await handle.result() == [False, True]
        assert len(await flows.events(handle, "timer_cancelled")) == 1


@workflow
async def futures_start_at_once(ctx: Context) -> int:
    first, second = double.execute(ctx, 1), double.execute(ctx, 2)
    timer = ctx.new_timer(5)
    await timer
    return await first + await second


async def test_futures_start_at_once_and_not_when_they_are_awaited(flows: Flows) -> None:
    async with flows.engine(futures_start_at_once, double) as engine:
        handle = await engine.client.start(futures_start_at_once.bind(), id="w")

        async def both_are_done() -> bool:
            return len(await flows.events(handle, "activity_completed")) == 2

        await flows.until(both_are_done)
        await flows.advance(5, "w")
        assert await handle.result() == 6


async def gathered(ctx: Context) -> Any:
    return await asyncio.gather(*(double.execute(ctx, n) for n in range(4)))


async def waited(ctx: Context) -> Any:
    done, pending = await asyncio.wait([double.execute(ctx, n) for n in range(4)])
    return [sorted(future.result() for future in done), len(pending)]


async def waited_for_the_first(ctx: Context) -> Any:
    slow: asyncio.Future[Any] = ctx.new_timer(60)
    fast: asyncio.Future[Any] = double.execute(ctx, 1)
    done, pending = await asyncio.wait([slow, fast], return_when=asyncio.FIRST_COMPLETED)
    for future in pending:
        future.cancel()
    return [done == {fast}, pending == {slow}]


async def completed_in_turn(ctx: Context) -> Any:
    return sorted([await each for each in asyncio.as_completed([double.execute(ctx, n) for n in range(4)])])


async def grouped(ctx: Context) -> Any:
    async def one(n: int) -> int:
        return await double.execute(ctx, n)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n)) for n in range(4)]
    return [task.result() for task in tasks]


async def timed_out(ctx: Context) -> Any:
    try:
        async with asyncio.timeout(0):
            await ctx.sleep(60)
    except TimeoutError:
        return "too late"


async def in_time(ctx: Context) -> Any:
    async with asyncio.timeout(60):
        return await double.execute(ctx, 1)


async def waited_for_long_enough(ctx: Context) -> Any:
    return await asyncio.wait_for(double.execute(ctx, 1), 60)


async def queued(ctx: Context) -> Any:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce(ctx: Context) -> None:
        for n in range(3):
            await queue.put(await double.execute(ctx, n))

    ctx.go(produce)
    return [await queue.get() for _ in range(3)]


async def limited(ctx: Context) -> Any:
    most, now = 0, 0
    semaphore = asyncio.Semaphore(2)

    async def one(n: int) -> None:
        nonlocal most, now
        async with semaphore:
            now += 1
            most = max(most, now)
            await double.execute(ctx, n)
            now -= 1

    await asyncio.gather(*(one(n) for n in range(6)))
    return most


async def signalled_by_events(ctx: Context) -> Any:
    event, order = asyncio.Event(), []

    async def waits(ctx: Context, n: int) -> None:
        await event.wait()
        order.append(n)

    fibers = [ctx.go(waits, n) for n in range(3)]
    await asyncio.sleep(0)
    event.set()
    await asyncio.gather(*fibers)
    return order


async def locked(ctx: Context) -> Any:
    lock, order = asyncio.Lock(), []

    async def one(n: int) -> None:
        async with lock:
            order.append(("in", n))
            await double.execute(ctx, n)
            order.append(("out", n))

    await asyncio.gather(*(one(n) for n in range(2)))
    return [name for name, _ in order]


async def conditioned(ctx: Context) -> Any:
    condition, ready = asyncio.Condition(), []

    async def fill(ctx: Context) -> None:
        async with condition:
            ready.append(await double.execute(ctx, 4))
            condition.notify_all()

    ctx.go(fill)
    async with condition:
        await condition.wait_for(lambda: bool(ready))
    return ready


async def grouped_by_anyio(ctx: Context) -> Any:
    results: list[int] = []

    async def one(n: int) -> None:
        results.append(await double.execute(ctx, n))

    async with anyio.create_task_group() as group:
        for n in range(3):
            group.start_soon(one, n)
    return sorted(results)


async def channelled_by_anyio(ctx: Context) -> Any:
    send, receive = anyio.create_memory_object_stream[int](1)
    async with anyio.create_task_group() as group:

        async def produce() -> None:
            async with send:
                for n in range(3):
                    await send.send(await double.execute(ctx, n))

        group.start_soon(produce)
        async with receive:
            return [value async for value in receive]


async def shielded_by_asyncio(ctx: Context) -> Any:
    activity_future = double.execute(ctx, 3)
    try:
        async with asyncio.timeout(0):
            await asyncio.shield(activity_future)
    except TimeoutError:
        return await activity_future


PATTERNS = {
    gathered: [0, 2, 4, 6],
    waited: [[0, 2, 4, 6], 0],
    waited_for_the_first: [True, True],
    completed_in_turn: [0, 2, 4, 6],
    grouped: [0, 2, 4, 6],
    timed_out: "too late",
    in_time: 2,
    waited_for_long_enough: 2,
    queued: [0, 2, 4],
    limited: 2,
    signalled_by_events: [0, 1, 2],
    locked: ["in", "out", "in", "out"],
    conditioned: [8],
    grouped_by_anyio: [0, 2, 4],
    channelled_by_anyio: [0, 2, 4],
    shielded_by_asyncio: 6,
}


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
async def test_asyncio_and_anyio_work_inside_workflows(flows: Flows, pattern: Any) -> None:
    flow = workflow(pattern.__name__)(pattern)
    async with flows.engine(flow, double) as engine:
        handle = await engine.client.start(flow.bind(), id="w")
        assert await handle.result() == PATTERNS[pattern]
        await flows.check_replay(handle, flow)


@workflow
async def asyncio_sleeps_are_durable(ctx: Context) -> float:
    started = ctx.now()
    await asyncio.sleep(3600)
    return (ctx.now() - started).total_seconds()


async def test_a_plain_asyncio_sleep_is_a_durable_timer(flows: Flows) -> None:
    async with flows.engine(asyncio_sleeps_are_durable) as engine:
        handle = await engine.client.start(asyncio_sleeps_are_durable.bind(), id="w")
        await flows.waiting("w")
    flows.clock.advance(timedelta(hours=1))
    async with flows.engine(asyncio_sleeps_are_durable):
        assert await handle.result() == 3600


@workflow
async def forgetful(ctx: Context) -> str:
    async def fails(ctx: Context) -> None:
        raise ValueError("nobody looked at this")

    ctx.go(fails)
    await double.execute(ctx, 1)
    return "done"


async def test_a_fiber_whose_error_nobody_awaited_fails_the_run(flows: Flows) -> None:
    async with flows.engine(forgetful, double) as engine:
        with pytest.raises(WorkflowFailed, match="nobody looked at this"):
            await engine.client.run(forgetful.bind(), id="w")


@workflow
async def leaves_fibers_behind(ctx: Context) -> str:
    async def goes_on(ctx: Context) -> None:
        await ctx.sleep(10)
        await double.execute(ctx, 1)

    ctx.go(goes_on)
    await ctx.sleep(5)
    return "done"


async def test_what_other_fibers_want_is_discarded_when_the_main_one_returns(flows: Flows) -> None:
    async with flows.engine(leaves_fibers_behind, double) as engine:
        handle = await engine.client.start(leaves_fibers_behind.bind(), id="w")
        await flows.advance(5, "w")
        assert await handle.result() == "done"
        pending = await flows.pending("w")
        assert not pending.timers
        assert not pending.activities


@workflow
async def asks_and_leaves(ctx: Context) -> str:
    ctx.new_timer(10)
    ctx.child(leaves_fibers_behind.bind(), id="never")
    double.execute(ctx, 1)
    return "done"


async def test_what_is_asked_for_in_the_task_of_the_end_is_recorded_and_not_carried_out(flows: Flows) -> None:
    async with flows.engine(asks_and_leaves, leaves_fibers_behind, double) as engine:
        handle = await engine.client.start(asks_and_leaves.bind(), id="w")
        assert await handle.result() == "done"
        assert types(await flows.events(handle))[-4:-1] == ["timer_scheduled", "child_scheduled", "activity_scheduled"]
        pending = await flows.pending("w")
        assert not pending.timers
        assert not pending.activities
        assert await flows.store.find_run("never") is None


@workflow
async def a_condition_that_fails(ctx: Context) -> str:
    async def look(ctx: Context) -> None:
        await double.execute(ctx, 1)
        found.append("x")

    found: list[str] = []

    def predicate() -> bool:
        if found:
            raise LookupError("the condition failed")
        return False

    ctx.go(look)
    try:
        await ctx.wait_for(predicate, timeout=60)
    except LookupError as exc:
        return str(exc)
    return "never"


async def test_an_error_in_a_condition_reaches_who_waits_for_it(flows: Flows) -> None:
    async with flows.engine(a_condition_that_fails, double) as engine:
        assert await engine.client.run(a_condition_that_fails.bind(), id="w") == "the condition failed"
