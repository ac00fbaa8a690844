"""Child workflows: started in their parent's commit, one result each, errors as they are."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from derecho import (
    ChildWorkflowFailed,
    Context,
    Signal,
    WorkflowAlreadyRunning,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowTerminated,
    activity,
    workflow,
    workflow_ref,
)
from tests.support.flows import Flows, in_order, types

go_on = Signal("go-on", int)


class OutOfStock(Exception):
    pass


@dataclass(frozen=True)
class Chunk:
    start: int
    end: int


@activity
async def add(start: int, end: int) -> int:
    return sum(range(start, end))


@workflow
async def chunk_sum(ctx: Context, chunk: Chunk) -> int:
    return await add.execute(ctx, chunk.start, chunk.end)


@workflow_ref("chunk_sum")
async def chunk_sum_elsewhere(ctx: Context, chunk: Chunk) -> int:
    raise NotImplementedError


@workflow
async def waits(ctx: Context) -> int:
    return await ctx.signals(go_on).receive()


@workflow
async def sells_out(ctx: Context) -> int:
    raise OutOfStock("no bolts")


@workflow
async def parent(ctx: Context) -> list[int]:
    first = ctx.child(chunk_sum.bind(Chunk(0, 10)))
    second = ctx.child(chunk_sum_elsewhere.bind(Chunk(10, 20)), id="second-half")
    return [await first, await second]


async def test_children_run_by_definition_or_reference_and_give_typed_results(flows: Flows) -> None:
    async with flows.engine(parent, chunk_sum, add) as engine:
        handle = await engine.client.start(parent.bind(), id="w")
        assert await handle.result() == [45, 145]
        assert await engine.client.get(chunk_sum, "second-half").result() == 145
        events = types(await flows.events(handle))
        assert events.count("child_started") == events.count("child_completed") == 2
        await flows.check_replay(handle, parent)


async def test_a_child_is_started_in_the_commit_of_its_parents_turn(flows: Flows) -> None:
    @workflow
    async def starts(ctx: Context) -> str:
        return await ctx.child(waits.bind(), id="child").started()

    async with flows.engine(starts, waits) as engine:
        handle = await engine.client.start(starts.bind(), id="w")
        run_id = await handle.result()
        child = await engine.client.get(waits, "child").describe()
        assert child.run_id == run_id
        [scheduled] = await flows.events(handle, "child_scheduled")
        assert scheduled["run_id"] == run_id


@workflow
async def catches(ctx: Context, what: str) -> list[Any]:
    child = ctx.child({"fails": sells_out, "waits": waits}[what].bind(), id="child")
    try:
        await child
    except OutOfStock as exc:
        cause = exc.__cause__
        return ["OutOfStock", str(exc), type(cause).__name__, getattr(cause, "workflow_id", "")]
    except (WorkflowCancelled, WorkflowTerminated) as exc:
        return [type(exc).__name__, exc.reason, exc.workflow_id]
    return ["no error"]


async def test_a_failed_child_raises_the_authors_own_exception(flows: Flows) -> None:
    async with flows.engine(catches, sells_out) as engine:
        result = await engine.client.run(catches.bind("fails"), id="w")
        assert result == ["OutOfStock", "no bolts", "ChildWorkflowFailed", "child"]


async def test_an_uncaught_failure_of_a_child_fails_the_parent(flows: Flows) -> None:
    @workflow
    async def lets_it_through(ctx: Context) -> None:
        await ctx.child(sells_out.bind())

    async with flows.engine(lets_it_through, sells_out) as engine:
        with pytest.raises(WorkflowFailed) as caught:
            await engine.client.run(lets_it_through.bind(), id="w")
        assert isinstance(caught.value.__cause__, OutOfStock)


async def test_a_cancelled_child_is_a_typed_error_of_its_parent(flows: Flows) -> None:
    async with flows.engine(catches, waits) as engine:
        handle = await engine.client.start(catches.bind("waits"), id="w")
        await flows.waiting("child")
        await engine.client.get(waits, "child").cancel("enough")
        assert await handle.result() == ["WorkflowCancelled", "enough", "child"]


async def test_a_terminated_child_is_a_typed_error_of_its_parent(flows: Flows) -> None:
    async with flows.engine(catches, waits) as engine:
        handle = await engine.client.start(catches.bind("waits"), id="w")
        await flows.waiting("child")
        await engine.client.get(waits, "child").terminate("now")
        assert await handle.result() == ["WorkflowTerminated", "now", "child"]


@workflow
async def wants_a_taken_id(ctx: Context) -> list[str]:
    seen = []
    child = ctx.child(waits.bind(), id="taken")
    try:
        await child.started()
    except WorkflowAlreadyRunning as exc:
        seen.append(exc.workflow_id)
    try:
        await child
    except WorkflowAlreadyRunning as exc:
        seen.append(type(exc).__name__)
    return seen


async def test_an_id_that_is_taken_is_an_error_and_the_stranger_is_left_alone(flows: Flows) -> None:
    async with flows.engine(wants_a_taken_id, waits) as engine:
        stranger = await engine.client.start(waits.bind(), id="taken")
        await flows.waiting("taken")
        assert await engine.client.run(wants_a_taken_id.bind(), id="w") == ["taken", "WorkflowAlreadyRunning"]
        await stranger.signal(go_on, 5)
        assert await stranger.result() == 5


async def test_cancelling_a_child_whose_id_was_taken_leaves_the_stranger_alone(flows: Flows) -> None:
    @workflow
    async def changes_its_mind(ctx: Context) -> str:
        child = ctx.child(waits.bind(), id="taken", on_cancel="wait")
        child.cancel()
        try:
            await child
        except asyncio.CancelledError:
            return "cancelled"
        return "adopted"

    async with flows.engine(changes_its_mind, waits) as engine:
        stranger = await engine.client.start(waits.bind(), id="taken")
        await flows.waiting("taken")
        assert await engine.client.run(changes_its_mind.bind(), id="w") == "cancelled"
        await stranger.signal(go_on, 5)
        assert await stranger.result() == 5


@workflow
async def signals_its_child(ctx: Context) -> int:
    child = ctx.child(waits.bind(), id="child")
    await child.signal(go_on, 41)
    return await child + 1


async def test_a_parent_signals_its_child_even_in_the_turn_that_starts_it(flows: Flows) -> None:
    async with flows.engine(signals_its_child, waits) as engine:
        handle = await engine.client.start(signals_its_child.bind(), id="w")
        assert await handle.result() == 42
        assert in_order(["child_scheduled", "signal_sent", "signal_delivered"], types(await flows.events(handle)))


async def test_a_signal_to_a_child_that_has_ended_is_an_error(flows: Flows) -> None:
    @workflow
    async def too_late(ctx: Context) -> str:
        child = ctx.child(chunk_sum.bind(Chunk(0, 2)))
        await child
        try:
            await child.signal(go_on, 1)
        except WorkflowNotFound:
            return "not found"
        return "sent"

    async with flows.engine(too_late, chunk_sum, add) as engine:
        assert await engine.client.run(too_late.bind(), id="w") == "not found"


async def test_a_child_knows_its_parent(flows: Flows) -> None:
    @workflow
    async def tells(ctx: Context) -> str | None:
        return ctx.info.parent_id

    @workflow
    async def asks(ctx: Context) -> str | None:
        return await ctx.child(tells.bind())

    async with flows.engine(tells, asks) as engine:
        assert await engine.client.run(asks.bind(), id="mother") == "mother"
        assert await engine.client.run(tells.bind(), id="orphan") is None


async def test_a_parent_gets_its_result_after_a_restart_of_everything(flows: Flows) -> None:
    @workflow
    async def patient(ctx: Context) -> int:
        return await ctx.child(waits.bind(), id="child")

    async with flows.engine(patient, waits) as engine:
        await engine.client.start(patient.bind(), id="w")
        await flows.waiting("w")
        await flows.waiting("child")
    async with flows.engine(patient, waits) as engine:
        await engine.client.get(waits, "child").signal(go_on, 9)
        handle = engine.client.get(patient, "w")
        assert await handle.result() == 9
        assert len(await flows.events(handle, "child_completed")) == 1


async def test_a_childs_result_after_its_parents_end_is_dropped(flows: Flows) -> None:
    @workflow
    async def leaves(ctx: Context) -> str:
        return await ctx.child(waits.bind(), id="child", close_policy="abandon").started()

    async with flows.engine(leaves, waits) as engine:
        handle = await engine.client.start(leaves.bind(), id="w")
        await handle.result()
        before = await flows.events(handle)
        child = engine.client.get(waits, "child")
        await child.signal(go_on, 1)
        assert await child.result() == 1
        assert await flows.events(handle) == before


@workflow
async def continued_child(ctx: Context, left: int) -> str:
    if left:
        raise ctx.continue_as_new(continued_child.bind(left - 1))
    return ctx.info.run_id


async def test_a_parent_gets_the_result_of_a_child_that_continued_as_new(flows: Flows) -> None:
    @workflow
    async def waits_for_it(ctx: Context) -> list[str]:
        child = ctx.child(continued_child.bind(3), id="child")
        return [await child.started(), await child]

    async with flows.engine(waits_for_it, continued_child) as engine:
        first, last = await engine.client.run(waits_for_it.bind(), id="w")
        assert first != last
        assert (await engine.client.get(continued_child, "child").describe()).run_id == last


@workflow
async def leaf(ctx: Context, n: int) -> int:
    return n


@workflow
async def branch(ctx: Context, start: int, width: int) -> int:
    return sum(await asyncio.gather(*(ctx.child(leaf.bind(n)) for n in range(start, start + width))))


@workflow
async def tree(ctx: Context, branches: int, width: int) -> int:
    children = [ctx.child(branch.bind(n * width, width), id=f"branch-{n}") for n in range(branches)]
    return sum(await asyncio.gather(*children))


async def test_a_tree_of_three_levels_with_a_thousand_leaves(flows: Flows) -> None:
    async with flows.engine(tree, branch, leaf) as engine:
        handle = await engine.client.start(tree.bind(20, 50), id="w")
        assert await handle.result() == sum(range(1000))
        first = await flows.events(engine.client.get(branch, "branch-0"), "child_completed")
        assert len(first) == 50


@pytest.mark.parametrize("name", ["ctx.child", "ctx.continue_as_new"])
async def test_only_a_call_of_a_workflow_can_be_a_child(flows: Flows, name: str) -> None:
    @workflow
    async def wrong(ctx: Context) -> None:
        if name == "ctx.child":
            ctx.child(add.bind(1, 2))
        raise ctx.continue_as_new(add.bind(1, 2))

    async with flows.engine(wrong, add) as engine:
        await engine.client.start(wrong.bind(), id="w")
        assert f"{name} takes a call of a workflow" in await flows.blocked("w")


def test_a_failed_child_is_a_failed_workflow() -> None:
    assert issubclass(ChildWorkflowFailed, WorkflowFailed)
