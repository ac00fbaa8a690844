"""Selectors: the first of several futures, each case once, ties to the case added first, losers take nothing."""

import asyncio
from typing import Any

import pytest

from derecho import Client, Context, DerechoError, RetryPolicy, Selector, Signal, activity, workflow
from tests.support.flows import Flows

number = Signal("number", int)
word = Signal("word", str)


@activity
async def triple(n: int) -> int:
    return 3 * n


@activity
async def fails(n: int) -> int:
    raise ValueError(f"no {n}")


def tagged(name: str) -> Any:
    return lambda value: [name, str(value)]


@workflow
async def approval(ctx: Context) -> str:
    selector: Selector[str] = Selector()
    selector.add(ctx.signals(word).receive_future(), lambda w: f"answer {w}")
    selector.add(ctx.new_timer(3600), lambda at: "too late")
    return await selector.select(ctx)


async def test_a_signal_beats_a_deadline(flows: Flows) -> None:
    async with flows.engine(approval) as engine:
        handle = await engine.client.start(approval.bind(), id="w")
        await flows.waiting("w")
        await handle.signal(word, "yes")
        assert await handle.result() == "answer yes"


async def test_a_deadline_beats_silence(flows: Flows) -> None:
    async with flows.engine(approval) as engine:
        handle = await engine.client.start(approval.bind(), id="w")
        await flows.advance(3600, "w")
        assert await handle.result() == "too late"


@workflow
async def each_case_once(ctx: Context) -> list[list[str]]:
    selector: Selector[list[str]] = Selector()
    selector.add(ctx.new_timer(3), tagged("timer"))
    selector.add(triple.execute(ctx, 2), tagged("activity"))
    selector.add(ctx.signals(number).receive_future(), tagged("signal"))
    seen = []
    while selector.has_pending():
        seen.append((await selector.select(ctx))[:1])
    return seen


async def test_each_case_fires_once_and_the_rest_stays_for_the_next_select(flows: Flows) -> None:
    async with flows.engine(each_case_once, triple) as engine:
        handle = await engine.client.start(each_case_once.bind(), id="w")

        async def activity_is_done() -> bool:
            return bool(await flows.events(handle, "activity_completed"))

        await flows.until(activity_is_done)
        await flows.waiting("w")
        await handle.signal(number, 1)
        await flows.advance(3, "w")
        assert await handle.result() == [["activity"], ["signal"], ["timer"]]
        await flows.check_replay(handle, each_case_once)


@workflow
async def ties(ctx: Context) -> list[str]:
    await ctx.sleep(1)
    selector: Selector[str] = Selector()
    selector.add(ctx.signals(word).receive_future(), lambda w: f"word {w}")
    selector.add(ctx.signals(number).receive_future(), lambda n: f"number {n}")
    return [await selector.select(ctx), await selector.select(ctx)]


async def test_ties_go_to_the_case_that_was_added_first(flows: Flows) -> None:
    async with flows.engine(ties) as engine:
        handle = await engine.client.start(ties.bind(), id="w")
        await flows.waiting("w")
        await handle.signal(number, 1)
        await handle.signal(word, "a")
        await flows.advance(1, "w")
        assert await handle.result() == ["word a", "number 1"]


@workflow
async def losing_receivers(ctx: Context) -> list[Any]:
    numbers = ctx.signals(number)
    selector: Selector[str] = Selector()
    selector.add(numbers.receive_future(), lambda n: f"selected {n}")
    selector.add(ctx.new_timer(1), lambda at: "timer")
    first = await selector.select(ctx)
    return [first, await numbers.receive(), await numbers.receive()]


async def test_a_losing_case_swallows_no_signal_between_two_selects(flows: Flows) -> None:
    async with flows.engine(losing_receivers) as engine:
        handle = await engine.client.start(losing_receivers.bind(), id="w")
        await flows.advance(1, "w")
        await flows.waiting("w")
        await handle.signal(number, 1)
        await handle.signal(number, 2)
        assert await handle.result() == ["timer", 1, 2]


async def test_a_signal_and_a_timer_that_come_together_are_both_seen(flows: Flows) -> None:
    @workflow
    async def both(ctx: Context) -> list[Any]:
        numbers = ctx.signals(number)
        selector: Selector[Any] = Selector()
        selector.add(ctx.new_timer(1), lambda at: "timer")
        selector.add(numbers.receive_future(), lambda n: n)
        seen = [await selector.select(ctx), await selector.select(ctx)]
        return [*sorted(seen, key=str), await numbers.receive()]

    async with flows.engine(both) as engine:
        await engine.client.start(both.bind(), id="w")
        await flows.waiting("w")
    flows.clock.advance(1)
    async with Client(flows.store) as client:
        await client.get(both, "w").signal(number, 5)
        await client.get(both, "w").signal(number, 6)
    async with flows.engine(both) as engine:
        assert await engine.client.get(both, "w").result() == [5, "timer", 6]


@workflow
async def again(ctx: Context, rounds: int) -> list[int]:
    """A select in a loop, with a case that stays: it goes on taking signals, one each round."""
    numbers, seen = ctx.signals(number), []
    quit_at = ctx.new_timer(100)
    for _ in range(rounds):
        selector: Selector[int] = Selector()
        selector.add(numbers.receive_future(), lambda n: n)
        selector.add(quit_at, lambda at: -1)
        seen.append(await selector.select(ctx))
    return seen


async def test_a_select_in_a_loop_takes_every_signal_once(flows: Flows) -> None:
    async with flows.engine(again) as engine:
        handle = await engine.client.start(again.bind(30), id="w")
        for n in range(30):
            await handle.signal(number, n)
        assert await handle.result() == list(range(30))


async def test_a_failed_future_raises_from_select_and_the_others_stay(flows: Flows) -> None:
    @workflow
    async def one_fails(ctx: Context) -> list[str]:
        selector: Selector[str] = Selector()
        selector.add(ctx.execute(fails.bind(1)), lambda n: "never")
        selector.add(ctx.new_timer(1), lambda at: "timer")
        try:
            return [await selector.select(ctx)]
        except ValueError as exc:
            return [str(exc), await selector.select(ctx)]

    async with flows.engine(one_fails, fails, default_retry_policy=RetryPolicy.none()) as engine:
        handle = await engine.client.start(one_fails.bind(), id="w")

        async def failed() -> bool:
            return bool(await flows.events(handle, "activity_failed"))

        await flows.until(failed)
        await flows.advance(1, "w")
        assert await handle.result() == ["no 1", "timer"]


async def test_a_cancelled_future_is_no_case_any_more(flows: Flows) -> None:
    @workflow
    async def one_is_cancelled(ctx: Context) -> list[Any]:
        timer = ctx.new_timer(100)
        selector: Selector[Any] = Selector()
        selector.add(timer, lambda at: "never").add(triple.execute(ctx, 1), lambda n: n)
        timer.cancel()
        first = await selector.select(ctx)
        try:
            await selector.select(ctx)
        except DerechoError as exc:
            return [first, selector.has_pending(), "no case left" in str(exc)]
        return []

    async with flows.engine(one_is_cancelled, triple) as engine:
        assert await engine.client.run(one_is_cancelled.bind(), id="w") == [3, False, True]


async def test_a_select_that_is_cancelled_gives_everything_back(flows: Flows) -> None:
    @workflow
    async def gives_back(ctx: Context) -> list[Any]:
        numbers = ctx.signals(number)
        selector: Selector[Any] = Selector()
        selector.add(numbers.receive_future(), lambda n: n)
        try:
            async with asyncio.timeout(1):
                await selector.select(ctx)
        except TimeoutError:
            pass
        direct = await numbers.receive()
        return [direct, await selector.select(ctx)]

    async with flows.engine(gives_back) as engine:
        handle = await engine.client.start(gives_back.bind(), id="w")
        await flows.advance(1, "w")
        await flows.waiting("w")
        await handle.signal(number, 1)
        await flows.waiting("w")
        await handle.signal(number, 2)
        assert await handle.result() == [1, 2]


@pytest.mark.parametrize("kind", ["activity", "timer", "fiber", "channel", "plain"])
async def test_every_kind_of_future_can_be_a_case(flows: Flows, kind: str) -> None:
    @workflow
    async def selects(ctx: Context, kind: str) -> str:
        async def fiber(ctx: Context) -> int:
            return await triple.execute(ctx, 1)

        channel = ctx.channel(int)

        async def feeds(ctx: Context) -> None:
            await channel.send(4)

        future: Any
        match kind:
            case "activity":
                future = triple.execute(ctx, 1)
            case "timer":
                future = ctx.new_timer(0)
            case "fiber":
                future = ctx.go(fiber)
            case "channel":
                ctx.go(feeds)
                future = channel.receive_future()
            case _:
                future = asyncio.get_running_loop().create_future()
                future.set_result(1)
        return await Selector[str]().add(future, lambda value: "chosen").select(ctx)

    async with flows.engine(selects, triple) as engine:
        assert await engine.client.run(selects.bind(kind), id="w") == "chosen"
