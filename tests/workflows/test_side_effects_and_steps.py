"""Side effects, chance and steps: what happened once is what every replay sees."""

import asyncio
import random
import uuid
from typing import Any

import pytest

from derecho import Context, RetryPolicy, WorkflowFailed, activity, workflow
from tests.support.flows import Flows, types

made: list[Any] = []


@activity
async def nothing() -> None:
    return None


@workflow
async def draws(ctx: Context) -> list[Any]:
    def number() -> int:
        made.append("made")
        return random.randrange(10**9)

    first = ctx.side_effect(number)
    await ctx.sleep(1)
    second = ctx.side_effect(lambda: str(uuid.uuid4()), type=str)
    await ctx.sleep(1)
    return [first, second, ctx.side_effect(number)]


async def test_a_side_effect_is_made_once_and_replayed_as_recorded(flows: Flows) -> None:
    made.clear()
    async with flows.engine(draws, cache_size=0) as engine:
        handle = await engine.client.start(draws.bind(), id="w")
        await flows.advance(1, "w")
        await flows.waiting("w")
    async with flows.engine(draws):
        await flows.advance(1, "w")
        first, second, third = await handle.result()
    recorded = [event["value"] for event in await flows.events(handle, "side_effect_recorded")]
    assert len(recorded) == 3
    assert len({first, second, third}) == 3
    assert len(made) == 2
    await flows.check_replay(handle, draws)
    assert len(made) == 2


async def test_a_side_effect_that_fails_fails_the_same_on_replay(flows: Flows) -> None:
    @workflow
    async def unlucky(ctx: Context) -> list[str]:
        def fails() -> int:
            raise OSError("no such device")

        caught = []
        try:
            ctx.side_effect(fails)
        except OSError as exc:
            caught.append(str(exc))
        await nothing.execute(ctx)
        return caught

    async with flows.engine(unlucky, nothing, cache_size=0) as engine:
        handle = await engine.client.start(unlucky.bind(), id="w")
        assert await handle.result() == ["no such device"]
        await flows.check_replay(handle, unlucky)


async def test_an_untyped_side_effect_that_would_change_is_refused_with_advice(flows: Flows) -> None:
    @workflow
    async def untyped(ctx: Context) -> str:
        return str(ctx.side_effect(lambda: uuid.uuid4()))

    async with flows.engine(untyped) as engine:
        await engine.client.start(untyped.bind(), id="w")
        assert "type" in await flows.blocked("w")


@workflow
async def chance(ctx: Context) -> list[Any]:
    numbers: list[Any] = [ctx.random.random(), ctx.random.randint(1, 6), str(ctx.uuid4())]
    await ctx.sleep(1)
    return [*numbers, ctx.random.choice("abcdef"), str(ctx.uuid4()), ctx.random.sample(range(100), 3)]


async def test_random_numbers_and_ids_are_those_of_the_run_in_every_process(flows: Flows) -> None:
    async with flows.engine(chance, cache_size=0) as engine:
        one = await engine.client.start(chance.bind(), id="one")
        two = await engine.client.start(chance.bind(), id="two")
        await flows.advance(1, "one", "two")
        assert await one.result() != await two.result()
        for handle in (one, two):
            await flows.check_replay(handle, chance)
            assert len(set(map(str, await handle.result()))) == 6


calls: list[str] = []


async def flaky(name: str) -> str:
    calls.append(name)
    if len(calls) < 3:
        raise OSError(f"attempt {len(calls)}")
    return name.upper()


async def test_a_step_is_retried_by_its_policy_and_recorded_once(flows: Flows) -> None:
    calls.clear()

    @workflow
    async def stepping(ctx: Context) -> str:
        return await ctx.step("flaky", flaky, "a", retry=RetryPolicy(initial_interval=0.0, jitter=0.0))

    async with flows.engine(stepping) as engine:
        handle = await engine.client.start(stepping.bind(), id="w")
        assert await handle.result() == "A"
        assert calls == ["a", "a", "a"]
        assert types(await flows.events(handle)).count("step_completed") == 1
        await flows.check_replay(handle, stepping)
        assert len(calls) == 3


async def test_a_step_without_a_policy_fails_at_once_with_the_authors_exception(flows: Flows) -> None:
    calls.clear()

    @workflow
    async def stepping(ctx: Context) -> str:
        try:
            return await ctx.step("flaky", flaky, "a")
        except OSError as exc:
            return str(exc)

    async with flows.engine(stepping) as engine:
        assert await engine.client.run(stepping.bind(), id="w") == "attempt 1"


async def test_a_step_that_takes_too_long_fails(flows: Flows) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    @workflow
    async def stepping(ctx: Context) -> None:
        await ctx.step("hangs", hangs, timeout=0.001)

    async with flows.engine(stepping) as engine:
        with pytest.raises(WorkflowFailed, match="took too long"):
            await engine.client.run(stepping.bind(), id="w")


async def test_an_unfinished_step_runs_again_in_the_next_engine(flows: Flows) -> None:
    began: list[int] = []
    gate = asyncio.Event()

    async def waits() -> int:
        began.append(1)
        await gate.wait()
        return len(began)

    @workflow
    async def stepping(ctx: Context) -> int:
        return await ctx.step("waits", waits)

    async with flows.engine(stepping) as engine:
        handle = await engine.client.start(stepping.bind(), id="w")
        await flows.until(lambda: began)
    gate.set()
    async with flows.engine(stepping):
        assert await handle.result() == 2
        assert types(await flows.events(handle)).count("step_scheduled") == 1


async def test_a_run_stays_claimed_while_a_step_runs_that_an_activitys_result_led_to(flows: Flows) -> None:
    """Else nobody would run the step again when its engine dies: found by the random programs."""
    began, gate = asyncio.Event(), asyncio.Event()

    async def waits() -> int:
        began.set()
        await gate.wait()
        return 1

    @workflow
    async def stepping(ctx: Context) -> int:
        await nothing.execute(ctx)
        return await ctx.step("waits", waits)

    async with flows.engine(stepping, nothing) as engine:
        handle = await engine.client.start(stepping.bind(), id="w")
        await began.wait()
        row = await flows.store.find_run("w")
        assert row is not None
        assert row.claim is not None
        gate.set()
        assert await handle.result() == 1


async def test_a_result_reaches_a_run_whose_step_is_still_under_way(flows: Flows) -> None:
    """After a second attempt it goes by the inbox, and the run is held for its step: found by the random programs."""
    attempts, gate = [], asyncio.Event()

    @activity(retry=RetryPolicy(initial_interval=0.0, jitter=0.0))
    async def second_time() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("once more")
        return "second"

    async def waits() -> str:
        await gate.wait()
        return "step"

    @workflow
    async def both(ctx: Context) -> list[str]:
        step = ctx.step("waits", waits)
        second = await second_time.execute(ctx)
        await nothing.execute(ctx)
        return [second, await step]

    async with flows.engine(both, second_time, nothing) as engine:
        handle = await engine.client.start(both.bind(), id="w")
        await flows.recorded(handle, "activity_completed", 2)
        gate.set()
        assert await handle.result() == ["second", "step"]


async def test_a_cancelled_step_stops_and_nobody_waits_for_it(flows: Flows) -> None:
    stopped: list[str] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append("stopped")
            raise

    @workflow
    async def stepping(ctx: Context) -> str:
        step = ctx.step("hangs", hangs)
        await nothing.execute(ctx)
        step.cancel()
        await nothing.execute(ctx)
        return "went on"

    async with flows.engine(stepping, nothing) as engine:
        handle = await engine.client.start(stepping.bind(), id="w")
        assert await handle.result() == "went on"
        await flows.until(lambda: stopped)
        await flows.check_replay(handle, stepping)
