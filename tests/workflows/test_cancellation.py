"""Cancellation: delivered once to the main fiber; reaches activities, timers and children; shields hold it back."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from derecho import Client, Context, Signal, WorkflowCancelled, WorkflowTerminated, activity, current_activity, workflow
from tests.support.flows import Flows, types

go = Signal("go", str)
noted: list[str] = []
hanging: list[str] = []


@activity
async def hangs() -> str:
    hanging.append(current_activity().run_id)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        noted.append(str(current_activity().cancel_reason))
        raise
    return ""


@activity
async def undo(what: str) -> str:
    noted.append(f"undid {what}")
    return what


@workflow
async def plain(ctx: Context) -> None:
    await ctx.sleep(3600)


@pytest.fixture(autouse=True)
def _nothing_noted() -> None:
    noted.clear()
    hanging.clear()


async def test_a_cancelled_run_says_why_and_leaves_no_timer(flows: Flows) -> None:
    async with flows.engine(plain) as engine:
        handle = await engine.client.start(plain.bind(), id="w")
        await flows.waiting("w")
        await handle.cancel("no longer wanted")
        with pytest.raises(WorkflowCancelled, match="no longer wanted") as caught:
            await handle.result()
        assert caught.value.reason == "no longer wanted"
        assert (await flows.pending("w")).timers == []


@workflow
async def cleans_up(ctx: Context) -> None:
    try:
        await hangs.execute(ctx)
    finally:
        await undo.execute(ctx, "the order")
        await ctx.sleep(5)
        noted.append("slept")


async def test_cancellation_reaches_the_activity_and_the_clean_up_is_durable(flows: Flows) -> None:
    async with flows.engine(cleans_up, hangs, undo) as engine:
        handle = await engine.client.start(cleans_up.bind(), id="w")
        await flows.waiting("w")
        await flows.until(lambda: hanging)
        await handle.cancel()
        await flows.recorded(handle, "timer_scheduled")
        await flows.until(lambda: "requested" in noted)
        assert (await handle.describe()).status == "cancelling"
        await flows.waiting("w")
    async with flows.engine(cleans_up, hangs, undo):
        flows.clock.advance(5)
        with pytest.raises(WorkflowCancelled):
            await handle.result()
    assert noted == ["requested", "undid the order", "slept"] or noted == ["undid the order", "requested", "slept"]


async def test_a_second_request_does_not_interrupt_the_clean_up(flows: Flows) -> None:
    async with flows.engine(cleans_up, hangs, undo) as engine:
        handle = await engine.client.start(cleans_up.bind(), id="w")
        await flows.waiting("w")
        await handle.cancel("first")
        await flows.recorded(handle, "timer_scheduled")
        await handle.cancel("second")
        await flows.recorded(handle, "cancel_requested", 2)
        await flows.advance(5, "w")
        with pytest.raises(WorkflowCancelled, match="first"):
            await handle.result()


async def test_a_run_may_refuse_to_be_cancelled(flows: Flows) -> None:
    @workflow
    async def stubborn(ctx: Context) -> str:
        try:
            await ctx.sleep(3600)
        except asyncio.CancelledError:
            await undo.execute(ctx, "nothing")
        return "done all the same"

    async with flows.engine(stubborn, undo) as engine:
        handle = await engine.client.start(stubborn.bind(), id="w")
        await flows.waiting("w")
        await handle.cancel()
        assert await handle.result() == "done all the same"


async def test_a_request_before_the_first_turn_cancels_at_once(flows: Flows) -> None:
    async with Client(flows.store) as client:
        handle = await client.start(plain.bind(), id="w")
        await handle.cancel("changed my mind")
        async with flows.engine(plain):
            with pytest.raises(WorkflowCancelled, match="changed my mind"):
                await handle.result()


@workflow
async def watches(ctx: Context) -> list[Any]:
    async with ctx.shield():
        info = await ctx.cancelled()
        return [info.reason, info.requested_at.tzinfo is UTC]


async def test_cancelled_is_a_future_of_the_request(flows: Flows) -> None:
    @workflow
    async def sees_it(ctx: Context) -> list[Any]:
        wanted = ctx.cancelled()
        async with ctx.shield():
            info = await wanted
            await undo.execute(ctx, info.reason)
        noted.append(f"{info.requested_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)}")
        return []

    async with flows.engine(sees_it, undo) as engine:
        handle = await engine.client.start(sees_it.bind(), id="w")
        await flows.waiting("w")
        await handle.cancel("a reason")
        with pytest.raises(WorkflowCancelled):
            await handle.result()
    assert noted == ["undid a reason", "True"]


@workflow
async def shielded(ctx: Context, timeout: float | None) -> str:
    async with ctx.shield(timeout):
        await ctx.signals(go).receive()
        noted.append("protected part done")
    await ctx.sleep(3600)
    return "never"


async def test_a_shield_holds_the_request_back_until_it_ends(flows: Flows) -> None:
    async with flows.engine(shielded) as engine:
        handle = await engine.client.start(shielded.bind(None), id="w")
        await flows.waiting("w")
        await handle.cancel()
        await flows.recorded(handle, "cancel_requested")
        await handle.signal(go, "on")
        with pytest.raises(WorkflowCancelled):
            await handle.result()
    assert noted == ["protected part done"]


async def test_a_shield_with_a_timeout_gives_in(flows: Flows) -> None:
    async with flows.engine(shielded) as engine:
        handle = await engine.client.start(shielded.bind(60.0), id="w")
        await flows.waiting("w")
        await handle.cancel()
        await flows.recorded(handle, "cancel_requested")
        await flows.advance(60, "w")
        with pytest.raises(WorkflowCancelled):
            await handle.result()
    assert noted == []


async def test_nested_shields_hold_until_the_last_one_ends(flows: Flows) -> None:
    @workflow
    async def nested(ctx: Context) -> None:
        async with ctx.shield():
            async with ctx.shield():
                await ctx.signals(go).receive()
            await undo.execute(ctx, "inner")
        await undo.execute(ctx, "never")

    async with flows.engine(nested, undo) as engine:
        handle = await engine.client.start(nested.bind(), id="w")
        await flows.waiting("w")
        await handle.cancel()
        await flows.recorded(handle, "cancel_requested")
        await handle.signal(go, "on")
        with pytest.raises(WorkflowCancelled):
            await handle.result()
    assert noted == ["undid inner"]


@workflow
async def will_not_end(ctx: Context) -> None:
    async def other(ctx: Context) -> None:
        await ctx.sleep(9 * 3600)

    ctx.go(other)
    while True:
        try:
            await ctx.sleep(3600)
        except asyncio.CancelledError:
            noted.append("ignored")


@pytest.mark.parametrize("requests", [[30.0], [None, 30.0], [3600.0, 30.0]])
async def test_a_run_that_does_not_end_is_closed_by_force(flows: Flows, requests: list[float | None]) -> None:
    async with flows.engine(will_not_end) as engine:
        handle = await engine.client.start(will_not_end.bind(), id="w")
        await flows.waiting("w")
        for count, limit in enumerate(requests, 1):
            await handle.cancel("end now", timeout=limit)
            await flows.recorded(handle, "cancel_requested", count)
        await flows.advance(30, "w")
        with pytest.raises(WorkflowCancelled, match="end now"):
            await handle.result()
        [end] = await flows.events(handle, "workflow_cancelled")
        assert end["fibers_left"] == 2
        assert (await flows.pending("w")).timers == []


async def test_terminate_closes_at_once_and_runs_no_clean_up(flows: Flows) -> None:
    async with flows.engine(cleans_up, hangs, undo) as engine:
        handle = await engine.client.start(cleans_up.bind(), id="w")
        await flows.waiting("w")
        await flows.until(lambda: hanging)
        await handle.terminate("now")
        with pytest.raises(WorkflowTerminated, match="now"):
            await handle.result()
        await flows.until(lambda: noted)
        await handle.terminate("twice is harmless")
        assert types(await flows.events(handle))[-1] == "workflow_terminated"
    assert noted == ["lost"]


@workflow
async def cancels_one(ctx: Context, on_cancel: Literal["request", "wait", "abandon"]) -> list[str]:
    future = ctx.execute(hangs.bind(), on_cancel=on_cancel)
    await ctx.sleep(1)
    future.cancel()
    try:
        await future
    except asyncio.CancelledError:
        return ["cancelled"]
    return ["went on"]


@pytest.mark.parametrize("on_cancel", ["request", "wait", "abandon"])
async def test_cancelling_an_activitys_future_follows_its_on_cancel(flows: Flows, on_cancel: Any) -> None:
    async with flows.engine(cancels_one, hangs) as engine:
        handle = await engine.client.start(cancels_one.bind(on_cancel), id="w")
        await flows.until(lambda: hanging)  # what has not begun would end without a word
        await flows.advance(1, "w")
        assert await handle.result() == ["cancelled"]
        await flows.until(lambda: noted)
        requested = await flows.events(handle, "activity_cancel_requested")
        ended = await flows.events(handle, "activity_cancelled")
        assert (len(requested), len(ended)) == {"request": (1, 0), "wait": (1, 1), "abandon": (0, 0)}[on_cancel]
        await flows.check_replay(handle, cancels_one)


@workflow
async def group_of_three(ctx: Context) -> None:
    async def part(name: str) -> None:
        try:
            await ctx.sleep(3600)
        finally:
            await undo.execute(ctx, name)

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(part(name))


async def test_a_task_group_is_cancelled_in_the_order_of_creation(flows: Flows) -> None:
    async with flows.engine(group_of_three, undo, max_concurrent_activities=1) as engine:
        handle = await engine.client.start(group_of_three.bind(), id="w")
        await flows.waiting("w")
        await handle.cancel()
        with pytest.raises(WorkflowCancelled):
            await handle.result()
        scheduled = await flows.events(handle, "activity_scheduled")
        assert [str(event["input"])[-4] for event in scheduled] == ["a", "b", "c"]
