"""Continue-as-new: a fresh history under the same workflow id, nothing lost on the way."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from derecho import Client, Context, Signal, activity, workflow
from tests.support.flows import Flows, types

number = Signal("number", int)
go = Signal("go", str)


@dataclass(frozen=True)
class Cursor:
    page: int
    seen: list[int]


@activity
async def fetch(page: int) -> int:
    return page * 10


@activity
async def never() -> None:
    await asyncio.Event().wait()


@workflow
async def poller(ctx: Context, cursor: Cursor) -> list[int]:
    seen = [*cursor.seen, await fetch.execute(ctx, cursor.page)]
    if cursor.page == 3:
        return seen
    raise ctx.continue_as_new(poller.bind(Cursor(cursor.page + 1, seen)))


async def test_typed_state_goes_from_run_to_run_and_clients_follow(flows: Flows) -> None:
    async with flows.engine(poller, fetch) as engine:
        handle = await engine.client.start(poller.bind(Cursor(0, [])), id="w")
        assert await handle.result() == [0, 10, 20, 30]
        runs = [run async for run in engine.client.list()]
        assert sorted(run.status for run in runs) == ["completed", *3 * ["continued_as_new"]]
        assert {run.workflow_id for run in runs} == {"w"}


async def test_a_client_elsewhere_follows_too(flows: Flows) -> None:
    async with Client(flows.store) as client:
        handle = await client.start(poller.bind(Cursor(0, [])), id="w")
        async with flows.engine(poller, fetch):
            assert await handle.result() == [0, 10, 20, 30]


async def test_each_run_has_a_history_of_its_own_that_replays(flows: Flows) -> None:
    async with flows.engine(poller, fetch) as engine:
        await engine.client.run(poller.bind(Cursor(0, [])), id="w")
        async for run in engine.client.list():
            handle = engine.client.get(poller, "w", run.run_id)
            assert len(await flows.events(handle)) < 8
            await flows.check_replay(handle, poller)


@workflow
async def becomes_another(ctx: Context, text: str) -> str:
    raise ctx.continue_as_new(another.bind(text, len(text)))


@workflow
async def another(ctx: Context, text: str, length: int) -> str:
    return f"{text} {length} {ctx.info.workflow_type}"


async def test_a_run_may_go_on_as_another_workflow(flows: Flows) -> None:
    async with flows.engine(becomes_another, another) as engine:
        assert await engine.client.run(becomes_another.bind("ab"), id="w") == "ab 2 another"


@workflow
async def forgets(ctx: Context, left: int, seen: list[int]) -> list[int]:
    """Reads one signal in each run; the others wait for the next ones."""
    seen = [*seen, await ctx.signals(number).receive()]
    if left == 0:
        return seen
    raise ctx.continue_as_new(forgets.bind(left - 1, seen))


async def test_unread_signals_move_to_the_new_run_in_order(flows: Flows) -> None:
    async with Client(flows.store) as client:
        handle = await client.start(forgets.bind(9, []), id="w")
        for n in range(10):
            await handle.signal(number, n)
    async with flows.engine(forgets) as engine:
        assert await engine.client.get(forgets, "w").result() == list(range(10))


async def test_signals_sent_while_runs_follow_each_other_are_received_once_each(flows: Flows) -> None:
    async with flows.engine(forgets) as engine:
        handle = await engine.client.start(forgets.bind(59, []), id="w")
        latest = engine.client.get(forgets, "w")
        for start in range(0, 60, 20):
            await asyncio.gather(*(latest.signal(number, n, key=str(n)) for n in range(start, start + 20)))
            await latest.signal(number, start, key=str(start))  # the keys are known to the whole chain
        assert sorted(await handle.result()) == list(range(60))


async def test_a_signal_that_a_fiber_had_not_looked_at_moves_on(flows: Flows) -> None:
    """It came in the same turn as what made the main fiber go on: the receiver never woke."""

    @workflow
    async def first(ctx: Context) -> int:
        async def receives(ctx: Context) -> None:
            await ctx.signals(number).receive()
            await ctx.sleep(1)

        ctx.go(receives)
        await ctx.signals(go).receive()
        raise ctx.continue_as_new(second.bind())

    @workflow
    async def second(ctx: Context) -> int:
        return await ctx.signals(number).receive()

    async with flows.engine(first, second) as engine:
        await engine.client.start(first.bind(), id="w")
        await flows.waiting("w")
    async with Client(flows.store) as client:
        await client.get_by_id("w").signal(go, "on")
        await client.get_by_id("w").signal(number, 4)
    async with flows.engine(first, second) as engine:
        assert await engine.client.get(second, "w").result() == 4


@workflow
async def leaves_things(ctx: Context) -> str:
    ctx.new_timer(3600)
    never.execute(ctx)
    await ctx.sleep(1)
    raise ctx.continue_as_new(tidy.bind())


@workflow
async def tidy(ctx: Context) -> str:
    await ctx.sleep(5)
    return "tidy"


async def test_timers_and_activities_of_the_old_run_end_with_it(flows: Flows) -> None:
    async with flows.engine(leaves_things, tidy, never) as engine:
        handle = await engine.client.start(leaves_things.bind(), id="w")
        first = await flows.waiting("w")
        flows.clock.advance(1)

        async def has_moved_on() -> bool:
            return (await flows.waiting("w")).run_id != first.run_id

        await flows.until(has_moved_on)
        old = await engine.store.pending(first.run_id)
        assert (old.timers, old.activities) == ([], [])
        assert len((await flows.pending("w")).timers) == 1
        await flows.advance(5, "w")
        assert await handle.result() == "tidy"


async def test_a_request_to_cancel_that_was_not_delivered_moves_on(flows: Flows) -> None:
    @workflow
    async def shielded(ctx: Context) -> str:
        async with ctx.shield():
            await ctx.signals(go).receive()
            raise ctx.continue_as_new(tidy.bind())

    async with flows.engine(shielded, tidy) as engine:
        handle = await engine.client.start(shielded.bind(), id="w")
        await flows.waiting("w")
        await handle.cancel("enough")
        await flows.waiting("w")
        await handle.signal(go, "on")
        latest = engine.client.get(tidy, "w")

        async def is_cancelled() -> bool:
            return (await latest.describe()).status == "cancelled"

        await flows.until(is_cancelled)


async def test_should_continue_as_new_is_said_when_the_history_is_long(flows: Flows, monkeypatch: Any) -> None:
    monkeypatch.setattr("derecho.context.HISTORY_ADVICE", 20)

    @workflow
    async def polls(ctx: Context, total: int) -> int:
        while not ctx.should_continue_as_new:
            total += await fetch.execute(ctx, 1)
            if total >= 200:
                return total
        raise ctx.continue_as_new(polls.bind(total))

    async with flows.engine(polls, fetch) as engine:
        assert await engine.client.run(polls.bind(0), id="w") == 200
        runs = [run async for run in engine.client.list()]
        assert len(runs) > 2


async def test_a_workflow_catching_exceptions_does_not_stop_it(flows: Flows) -> None:
    @workflow
    async def careful(ctx: Context, left: int) -> str:
        try:
            if left:
                raise ctx.continue_as_new(careful.bind(left - 1))
        except Exception:
            return "caught"
        return "passed"

    async with flows.engine(careful) as engine:
        assert await engine.client.run(careful.bind(2), id="w") == "passed"


@pytest.mark.parametrize("runs", [3])
async def test_ids_and_the_chain_are_kept(flows: Flows, runs: int) -> None:
    @workflow
    async def counts(ctx: Context, left: int) -> str:
        if left:
            raise ctx.continue_as_new(counts.bind(left - 1))
        return ctx.info.workflow_id

    async with flows.engine(counts) as engine:
        assert await engine.client.run(counts.bind(runs), id="w") == "w"
        row = await engine.store.find_run("w")
        assert row is not None
        started = (await engine.client.get_by_id("w", row.run_id).history()).tasks[0].events[0]
        assert started["continued_from"] != row.run_id
        assert started["first_run_id"] == row.chain_id
        assert types(await flows.events(engine.client.get_by_id("w", row.run_id)))[-1] == "workflow_completed"
