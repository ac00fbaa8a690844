"""`ctx.map`: many calls, a limit on what is really in flight, results in order."""

import asyncio
from typing import Any

import pytest

from derecho import ActivityFailed, Context, RetryPolicy, WorkflowFailed, activity, workflow
from tests.support.flows import Flows


class Load:
    """How many activities ran at once."""

    now = most = 0


load = Load()


@activity
async def work(n: int) -> int:
    load.now += 1
    load.most = max(load.most, load.now)
    await asyncio.sleep(0)
    load.now -= 1
    return n * n


@activity
async def breaks_at(n: int, bad: int) -> int:
    if n == bad:
        raise ValueError(f"item {n}")
    return n


@workflow
async def squares(ctx: Context, count: int, limit: int | None) -> list[int]:
    return await ctx.map([work.bind(n) for n in range(count)], limit=limit)


async def test_results_come_in_the_order_of_the_calls(flows: Flows) -> None:
    async with flows.engine(squares, work) as engine:
        assert await engine.client.run(squares.bind(50, None), id="w") == [n * n for n in range(50)]
        assert await engine.client.run(squares.bind(0, None), id="empty") == []


async def test_no_more_than_the_limit_is_in_flight(flows: Flows) -> None:
    load.now = load.most = 0
    async with flows.engine(squares, work) as engine:
        handle = await engine.client.start(squares.bind(30, 3), id="w")
        await handle.result()
    open_now = most = 0
    for event in await flows.events(handle, "activity_scheduled", "activity_completed"):
        open_now += 1 if event["type"] == "activity_scheduled" else -1
        most = max(most, open_now)
    assert most == 3
    assert 1 <= load.most <= 3


async def test_the_first_failure_is_raised_as_it_is_and_cancels_the_rest(flows: Flows) -> None:
    @workflow
    async def fails_in_the_middle(ctx: Context) -> list[int]:
        return await ctx.map([breaks_at.bind(n, 2) for n in range(100)], limit=2)

    async with flows.engine(fails_in_the_middle, breaks_at, default_retry_policy=RetryPolicy.none()) as engine:
        handle = await engine.client.start(fails_in_the_middle.bind(), id="w")
        with pytest.raises(WorkflowFailed) as caught:
            await handle.result()
        assert isinstance(caught.value.__cause__, ValueError)
        assert isinstance(caught.value.__cause__.__cause__, ActivityFailed)
        assert len(await flows.events(handle, "activity_scheduled")) < 10


@workflow
async def one(ctx: Context, n: int) -> int:
    return await work.execute(ctx, n)


@workflow
async def over_children(ctx: Context, count: int) -> list[int]:
    return await ctx.map([one.bind(n) for n in range(count)], limit=4)


async def test_children_are_mapped_like_activities(flows: Flows) -> None:
    async with flows.engine(over_children, one, work) as engine:
        handle = await engine.client.start(over_children.bind(12), id="w")
        assert await handle.result() == [n * n for n in range(12)]
        assert len(await flows.events(handle, "child_scheduled")) == 12


@activity
async def never() -> None:
    await asyncio.Event().wait()


async def test_cancelling_a_map_cancels_what_is_in_flight(flows: Flows) -> None:
    @workflow
    async def gives_up(ctx: Context) -> str:
        mapped = ctx.map([never.bind() for _ in range(5)], limit=2)
        await ctx.sleep(1)
        mapped.cancel()
        try:
            await mapped
        except asyncio.CancelledError:
            return "cancelled"
        return "done"

    async with flows.engine(gives_up, never) as engine:
        handle = await engine.client.start(gives_up.bind(), id="w")
        await flows.advance(1, "w")
        assert await handle.result() == "cancelled"
        assert len(await flows.events(handle, "activity_scheduled")) == 2
        assert len(await flows.events(handle, "activity_cancel_requested")) == 2


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_refused(flows: Flows, limit: Any) -> None:
    async with flows.engine(squares, work) as engine:
        with pytest.raises(WorkflowFailed, match="at least 1"):
            await engine.client.run(squares.bind(1, limit), id="w")
