"""What a parent that closes means for its open children."""

import asyncio
from typing import Any, Literal

import pytest

from derecho import ChildHandle, Context, Handle, Signal, activity, workflow
from tests.support.flows import Flows

Policy = Literal["terminate", "cancel", "abandon"]
ENDS: dict[Policy, str] = {"terminate": "terminated", "cancel": "cancelled", "abandon": "running"}
POLICIES: list[Policy] = list(ENDS)

go_on = Signal("go-on", int)
finish = Signal("finish", str)


@workflow
async def child(ctx: Context) -> int:
    async for n in ctx.signals(go_on):
        if n:
            return n
        raise ctx.continue_as_new(child.bind())
    return 0


@workflow
async def parent(ctx: Context, policy: Policy) -> str:
    handle = ctx.child(child.bind(), id="child", close_policy=policy)
    await handle.started()
    match await ctx.signals(finish).receive():
        case "fail":
            raise ValueError("the parent fails")
        case "continue":
            raise ctx.continue_as_new(nothing.bind())
        case _:
            return "done"


@workflow
async def nothing(ctx: Context) -> str:
    return "continued"


async def status_of(handle: Handle[Any]) -> str:
    return (await handle.describe()).status


async def expect(flows: Flows, handle: Handle[int], policy: Policy) -> None:
    """The child ends as its policy says; an abandoned one goes on."""
    if policy == "abandon":
        await flows.waiting("child")
        await handle.signal(go_on, 3)
        assert await handle.result() == 3
        return

    async def has_ended() -> bool:
        return (await status_of(handle)) == ENDS[policy]

    await flows.until(has_ended)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("end", ["return", "fail", "continue"])
async def test_a_parent_that_ends_by_itself(flows: Flows, policy: Policy, end: str) -> None:
    async with flows.engine(parent, child, nothing) as engine:
        handle = await engine.client.start(parent.bind(policy), id="w")
        await flows.waiting("child")
        await handle.signal(finish, end)
        await expect(flows, engine.client.get(child, "child"), policy)


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_parent_that_is_terminated(flows: Flows, policy: Policy) -> None:
    async with flows.engine(parent, child) as engine:
        handle = await engine.client.start(parent.bind(policy), id="w")
        await flows.waiting("child")
        await handle.terminate("enough")
        await expect(flows, engine.client.get(child, "child"), policy)


@pytest.mark.parametrize("policy", POLICIES)
async def test_the_policy_reaches_a_child_that_has_continued_as_new(flows: Flows, policy: Policy) -> None:
    async with flows.engine(parent, child) as engine:
        handle = await engine.client.start(parent.bind(policy), id="w")
        first = (await flows.waiting("child")).run_id
        open_child = engine.client.get(child, "child")
        await open_child.signal(go_on, 0)

        async def has_continued() -> bool:
            return (await open_child.describe()).run_id != first

        await flows.until(has_continued)
        await flows.waiting("child")
        await handle.signal(finish, "return")
        await handle.result()
        await expect(flows, open_child, policy)


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_stranger_that_took_a_childs_id_is_left_alone(flows: Flows, policy: Policy) -> None:
    async with flows.engine(parent, refused, child) as engine:
        stranger = await engine.client.start(child.bind(), id="child")
        await flows.waiting("child")
        await engine.client.run(refused.bind(policy), id="w")
        await stranger.signal(go_on, 8)
        assert await stranger.result() == 8


@workflow
async def refused(ctx: Context, policy: Policy) -> None:
    ctx.child(child.bind(), id="child", close_policy=policy)
    await ctx.step("something else", _nothing)


async def _nothing() -> None:
    return None


@activity
async def held() -> None:
    await asyncio.sleep(3600)


@workflow
async def grandchild(ctx: Context) -> None:
    timer = ctx.new_timer(3600)
    await held.execute(ctx)
    await timer


@workflow
async def middle(ctx: Context) -> None:
    await ctx.child(grandchild.bind(), id="grandchild")


@workflow
async def top(ctx: Context) -> None:
    await ctx.child(middle.bind(), id="middle")


async def test_terminating_a_parent_closes_the_whole_tree_and_leaves_no_row_behind(flows: Flows) -> None:
    async with flows.engine(top, middle, grandchild, held) as engine:
        handle = await engine.client.start(top.bind(), id="top")
        row = await flows.waiting("grandchild")
        await handle.terminate("enough")
        below = engine.client.get(grandchild, "grandchild")

        async def has_ended() -> bool:
            return (await status_of(below)) == "terminated"

        await flows.until(has_ended)
        pending = await engine.store.pending(row.run_id)
        assert (pending.timers, pending.activities, pending.messages) == ([], [], [])
        assert (await engine.store.due_timers(1)).next_at is None


async def test_cancelling_a_parent_cancels_the_whole_tree(flows: Flows) -> None:
    async with flows.engine(top, middle, grandchild, held) as engine:
        handle = await engine.client.start(top.bind(), id="top")
        await flows.waiting("grandchild")
        await handle.cancel("enough")
        for name, flow in (("top", top), ("middle", middle), ("grandchild", grandchild)):

            async def has_ended(name: str = name, flow: Any = flow) -> bool:
                return (await status_of(engine.client.get(flow, name))) in ("cancelled", "terminated")

            await flows.until(has_ended)


@workflow
async def on_cancel(ctx: Context, how: Literal["request", "wait", "abandon"]) -> str:
    handle: ChildHandle[int] = ctx.child(child.bind(), id="child", on_cancel=how, close_policy="abandon")
    await handle.started()
    await ctx.signals(finish).receive()
    handle.cancel()
    try:
        await handle
    except asyncio.CancelledError:
        return "cancelled"
    return "finished"


@pytest.mark.parametrize("how", ["request", "wait", "abandon"])
async def test_cancelling_a_handle_follows_its_on_cancel(flows: Flows, how: Any) -> None:
    async with flows.engine(on_cancel, child) as engine:
        handle = await engine.client.start(on_cancel.bind(how), id="w")
        await flows.waiting("child")
        await flows.waiting("w")
        await handle.signal(finish, "now")
        assert await handle.result() == "cancelled"
        below = engine.client.get(child, "child")
        if how == "wait":
            assert await status_of(below) == "cancelled"
        elif how == "abandon":
            await below.signal(go_on, 4)
            assert await below.result() == 4
