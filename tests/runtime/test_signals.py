"""A signal goes to exactly one receiver; who is cancelled or loses a race takes nothing and loses nothing."""

import asyncio
from typing import Any

import pytest

from derecho import Context, PayloadError, Selector, Signal, activity, workflow
from derecho.journal import events as ev
from derecho.journal.payloads import Payload
from tests.runtime.conftest import DriveOf
from tests.support.drive import names

number = Signal("number", int)
word = Signal("word", str)


@activity
async def work() -> None: ...


def test_signals_arrive_in_order_also_those_that_came_before_anybody_asked(drive: DriveOf) -> None:
    @workflow
    async def collects(ctx: Context) -> list[int]:
        await ctx.sleep(60)
        channel = ctx.signals(number)
        return [await channel.receive() for _ in range(4)]

    run = drive(collects)
    run.begin(run.signal(number, 1))
    run.task(run.signal(number, 2))
    run.task(run.signal(number, 3), run.fired(), after=60)
    run.task(run.signal(number, 4))
    assert run.result == [1, 2, 3, 4]
    run.check()


def test_two_kinds_do_not_mix(drive: DriveOf) -> None:
    @workflow
    async def collects(ctx: Context) -> list[Any]:
        return [await ctx.signals(word).receive(), await ctx.signals(number).receive()]

    run = drive(collects)
    run.begin(run.signal(number, 1))
    run.task(run.signal(word, "a"))
    assert run.result == ["a", 1]


def test_receivers_are_served_in_the_order_in_which_they_asked(drive: DriveOf) -> None:
    @workflow
    async def collects(ctx: Context) -> list[str]:
        async def one(ctx: Context, name: str) -> str:
            return f"{name}{await ctx.signals(number).receive()}"

        return await asyncio.gather(*(ctx.go(one, name) for name in "abc"))

    run = drive(collects)
    run.begin()
    run.task(*(run.signal(number, n) for n in (1, 2, 3)))
    assert run.result == ["a1", "b2", "c3"]


def test_a_loser_of_a_race_swallows_no_later_signal(drive: DriveOf) -> None:
    @workflow
    async def races(ctx: Context) -> list[Any]:
        channel = ctx.signals(number)
        selector = Selector[Any]().add(channel.receive_future(), lambda n: n).add(ctx.new_timer(60), lambda _: "late")
        first = await selector.select(ctx)
        return [first, await channel.receive()]

    run = drive(races)
    run.begin()
    run.task(run.fired(), after=60)
    run.task(run.signal(number, 7))
    assert run.result == ["late", 7]
    run.check()


def test_a_signal_that_lost_in_the_same_task_is_there_for_the_next_who_asks(drive: DriveOf) -> None:
    @workflow
    async def races(ctx: Context) -> list[Any]:
        channel = ctx.signals(number)
        selector = Selector[Any]().add(ctx.new_timer(60), lambda _: "late").add(channel.receive_future(), lambda n: n)
        first = await selector.select(ctx)
        return [first, channel.try_receive(), channel.try_receive()]

    run = drive(races)
    run.begin()
    run.task(run.signal(number, 7), run.fired(), after=60)
    assert run.result == ["late", 7, None]
    run.check()


@pytest.mark.parametrize("how", ["wait_for", "timeout", "cancel"])
def test_a_cancelled_receive_takes_nothing(drive: DriveOf, how: str) -> None:
    @workflow
    async def gives_up(ctx: Context) -> list[Any]:
        channel = ctx.signals(number)
        try:
            match how:
                case "wait_for":
                    await asyncio.wait_for(channel.receive(), 60)
                case "timeout":
                    async with asyncio.timeout(60):
                        await channel.receive()
                case _:
                    fiber = asyncio.create_task(channel.receive())
                    await ctx.sleep(60)
                    fiber.cancel()
                    await fiber
        except (TimeoutError, asyncio.CancelledError):
            return ["gave up", await channel.receive(), await channel.receive()]
        return ["received"]

    run = drive(gives_up)
    run.begin()
    run.task(run.fired(), after=60)
    run.task(run.signal(number, 1), run.signal(number, 2))
    assert run.result == ["gave up", 1, 2]
    run.check()


@pytest.mark.parametrize("facts", ["signal first", "timer first"])
def test_a_receive_that_was_served_and_cancelled_at_once_gives_back_to_the_front(drive: DriveOf, facts: str) -> None:
    @workflow
    async def gives_up(ctx: Context) -> list[Any]:
        channel = ctx.signals(number)
        fiber = asyncio.create_task(channel.receive())
        await ctx.sleep(60)
        fiber.cancel()
        [found] = await asyncio.gather(fiber, return_exceptions=True)
        rest = [await channel.receive() for _ in range(3 - isinstance(found, int))]
        return [isinstance(found, int), *([found] if isinstance(found, int) else []), *rest]

    run = drive(gives_up)
    run.begin()
    signals = run.signal(number, 1), run.signal(number, 2)
    run.task(*((*signals, run.fired()) if facts == "signal first" else (run.fired(), *signals)), after=60)
    run.task(run.signal(number, 3))
    assert run.result[1:] == [1, 2, 3]
    run.check()


def test_try_receive_leaves_those_who_wait_in_peace(drive: DriveOf) -> None:
    @workflow
    async def mixed(ctx: Context) -> list[Any]:
        channel = ctx.signals(number)
        waiting = channel.receive_future()
        none_yet = channel.try_receive()
        await ctx.sleep(60)
        return [none_yet, await waiting, channel.try_receive(), channel.try_receive()]

    run = drive(mixed)
    run.begin()
    run.task(run.signal(number, 1), run.signal(number, 2))
    run.task(run.fired(), after=60)
    assert run.result == [None, 1, 2, None]
    run.check()


def test_what_nobody_received_is_counted_at_the_end(drive: DriveOf) -> None:
    @workflow
    async def ignores(ctx: Context) -> int:
        return await ctx.signals(number).receive()

    run = drive(ignores)
    run.begin(run.signal(word, "a"), run.signal(number, 1), run.signal(number, 2))
    assert isinstance(run.outcome, ev.WorkflowCompleted)
    assert run.outcome.unread == 2


def test_a_signal_that_cannot_be_read_blocks_and_is_kept(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> int:
        return await ctx.signals(number).receive()

    run = drive(waits)
    run.begin()
    bad = ev.SignalReceived("number", Payload(encoding="json", json=b'"text"'), run.at)  # type: ignore[arg-type]  # Raw takes bytes
    with pytest.raises(PayloadError, match="signal 'number' cannot be decoded as int: Expected `int`, got `str`"):
        run.task(bad)


def test_it_blocks_also_when_code_would_catch_it(drive: DriveOf) -> None:
    @workflow
    async def catches(ctx: Context) -> int:
        await work.execute(ctx)
        try:
            return await ctx.signals(number).receive()
        except Exception:
            return -1

    run = drive(catches)
    run.begin()
    run.task(ev.SignalReceived("number", Payload(encoding="json", json=b'"text"'), run.at))  # type: ignore[arg-type]  # Raw takes bytes
    with pytest.raises(PayloadError, match="signal 'number' cannot be decoded as int"):
        run.task(run.completed("work"))


def test_signals_that_nobody_waits_for_ask_for_nothing(drive: DriveOf) -> None:
    @workflow
    async def sleeps(ctx: Context) -> None:
        await work.execute(ctx)

    run = drive(sleeps)
    run.begin()
    assert names(run.task(run.signal(word, "x"))) == []
    run.check()


def test_signals_that_two_receivers_give_back_are_in_order_again(drive: DriveOf) -> None:
    @workflow
    async def cancels_two(ctx: Context) -> list[int]:
        channel = ctx.signals(number)
        fibers = [asyncio.create_task(channel.receive()) for _ in range(2)]
        await ctx.sleep(60)
        for fiber in fibers:
            fiber.cancel()
        await asyncio.gather(*fibers, return_exceptions=True)
        return [await channel.receive() for _ in range(3)]

    run = drive(cancels_two)
    run.begin()
    run.task(run.fired(), *(run.signal(number, n) for n in (1, 2, 3)), after=60)
    assert run.result == [1, 2, 3]
    run.check()


def test_two_cases_of_a_selector_that_lose_give_back_in_order(drive: DriveOf) -> None:
    @workflow
    async def selects(ctx: Context) -> list[int]:
        channel = ctx.signals(number)
        selector: Selector[Any] = Selector()
        futures: list[Any] = [ctx.new_timer(60), channel.receive_future(), channel.receive_future()]
        for future in futures:
            selector.add(future, str)
        await selector.select(ctx)
        return [await channel.receive() for _ in range(2)]

    run = drive(selects)
    run.begin()
    run.task(run.signal(number, 1), run.signal(number, 2), run.fired(), after=60)
    assert run.result == [1, 2]
    run.check()


def test_a_future_that_is_given_up_when_its_signal_has_come_gives_it_back(drive: DriveOf) -> None:
    @workflow
    async def gives_up(ctx: Context) -> list[Any]:
        channel, seen = ctx.signals(number), list[Any]()
        future = channel.receive_future()
        for _ in range(2):
            try:
                async with asyncio.timeout(60):
                    seen.append(await future)
            except (TimeoutError, asyncio.CancelledError) as exc:
                seen.append(type(exc).__name__)
        return [*seen, channel.try_receive(), channel.try_receive()]

    run = drive(gives_up)
    run.begin()
    run.task(run.fired(), run.signal(number, 1), after=60)
    assert run.result == ["TimeoutError", "CancelledError", 1, None]
    run.check()


def test_a_future_whose_signal_came_with_a_request_to_cancel_gives_it_back(drive: DriveOf) -> None:
    @workflow
    async def is_cancelled(ctx: Context) -> int | None:
        channel = ctx.signals(number)
        try:
            await channel.receive_future()
        except asyncio.CancelledError:
            return channel.try_receive()
        return None

    run = drive(is_cancelled)
    run.begin()
    run.task(run.signal(number, 1), run.cancel())
    assert run.result == 1
    run.check()
