"""Signals: typed, in order, to one receiver each, never lost."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import cast

import pytest

from derecho import Client, Context, PayloadError, Signal, WorkflowNotFound, activity, workflow
from tests.support.flows import Flows, types


@dataclass(frozen=True)
class Approval:
    by: str
    amount: int = 0


number = Signal("number", int)
approval = Signal("approval", Approval)
stop = Signal("stop", str)


@workflow
async def collects(ctx: Context, count: int) -> list[int]:
    numbers = ctx.signals(number)
    return [await numbers.receive() for _ in range(count)]


async def test_signals_are_received_in_the_order_in_which_they_were_acknowledged(flows: Flows) -> None:
    async with flows.engine(collects) as engine:
        handle = await engine.client.start(collects.bind(20), id="w")
        for n in range(20):
            await handle.signal(number, n)
        assert await handle.result() == list(range(20))


async def test_signals_before_the_first_turn_wait_for_the_code(flows: Flows) -> None:
    async with Client(flows.store) as client:
        handle = await client.start(collects.bind(3), id="w")
        for n in range(3):
            await handle.signal(number, n)
    async with flows.engine(collects) as engine:
        assert await engine.client.get(collects, "w").result() == [0, 1, 2]


async def test_signals_given_to_start_come_first_and_in_the_same_commit(flows: Flows) -> None:
    async with Client(flows.store) as client:
        handle = await client.start(collects.bind(3), id="w", signals=[(number, 7), (number, 8)])
        await handle.signal(number, 9)
    async with flows.engine(collects) as engine:
        assert await engine.client.get(collects, "w").result() == [7, 8, 9]


async def test_a_typed_signal_arrives_as_its_type(flows: Flows) -> None:
    @workflow
    async def approves(ctx: Context) -> Approval:
        return await ctx.signals(approval).receive()

    async with flows.engine(approves) as engine:
        handle = await engine.client.start(approves.bind(), id="w")
        await handle.signal(approval, Approval("mia", 3))
        assert await handle.result() == Approval("mia", 3)


async def test_a_signal_of_the_wrong_type_is_refused_at_the_sender(flows: Flows) -> None:
    async with flows.engine(collects) as engine:
        handle = await engine.client.start(collects.bind(1), id="w")
        with pytest.raises(PayloadError, match="number"):
            await handle.signal(number, cast(int, "seven"))
        await handle.signal(number, 1)
        assert await handle.result() == [1]


async def test_a_signal_with_a_key_is_received_once_however_often_it_is_sent(flows: Flows) -> None:
    async with flows.engine(collects) as engine:
        handle = await engine.client.start(collects.bind(2), id="w")
        for _ in range(3):
            await handle.signal(number, 1, key="payment-1")
        await handle.signal(number, 2)
        assert await handle.result() == [1, 2]


async def test_try_receive_takes_what_is_there_and_never_waits(flows: Flows) -> None:
    @workflow
    async def tries(ctx: Context) -> list[int | None]:
        numbers = ctx.signals(number)
        seen = [numbers.try_receive()]
        await ctx.sleep(1)
        return [*seen, numbers.try_receive(), numbers.try_receive(), numbers.try_receive()]

    async with flows.engine(tries) as engine:
        handle = await engine.client.start(tries.bind(), id="w")
        await flows.waiting("w")
        await handle.signal(number, 1)
        await handle.signal(number, 2)
        await flows.advance(1, "w")
        assert await handle.result() == [None, 1, 2, None]


async def test_async_for_takes_one_after_the_other(flows: Flows) -> None:
    @workflow
    async def adds(ctx: Context) -> int:
        total = 0
        async for n in ctx.signals(number):
            if n == 0:
                break
            total += n
        return total

    async with flows.engine(adds) as engine:
        handle = await engine.client.start(adds.bind(), id="w")
        for n in (1, 2, 3, 0):
            await handle.signal(number, n)
        assert await handle.result() == 6


@activity
async def slow(n: int) -> int:
    await asyncio.sleep(0)
    return n


async def test_signals_are_delivered_while_a_turn_is_under_way(flows: Flows) -> None:
    @workflow
    async def busy(ctx: Context, count: int) -> list[int]:
        numbers = ctx.signals(number)
        seen: list[int] = []
        while len(seen) < count:
            await slow.execute(ctx, len(seen))
            while (n := numbers.try_receive()) is not None:
                seen.append(n)
        return seen

    async with flows.engine(busy, slow) as engine:
        handle = await engine.client.start(busy.bind(50), id="w")
        for n in range(50):
            await handle.signal(number, n)
        assert await handle.result() == list(range(50))


@workflow
async def cancelled_receivers(ctx: Context) -> list[int]:
    """A receive that loses its race, in all the ways of asyncio, takes nothing."""
    numbers = ctx.signals(number)
    for _ in range(2):
        try:
            async with asyncio.timeout(1):
                await numbers.receive()
        except TimeoutError:
            pass
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(numbers.receive(), 1)
    fiber = asyncio.ensure_future(numbers.receive())
    await asyncio.sleep(0)
    fiber.cancel()
    await asyncio.sleep(0)
    future = numbers.receive_future()
    future.cancel()
    return [await numbers.receive(), await numbers.receive()]


async def test_a_receiver_that_was_cancelled_takes_no_signal(flows: Flows) -> None:
    async with flows.engine(cancelled_receivers) as engine:
        handle = await engine.client.start(cancelled_receivers.bind(), id="w")
        for _ in range(4):
            await flows.advance(1, "w")
        await flows.waiting("w")
        await handle.signal(number, 1)
        await handle.signal(number, 2)
        assert await handle.result() == [1, 2]


async def test_a_signal_and_a_timeout_in_the_same_turn_lose_nothing(flows: Flows) -> None:
    @workflow
    async def races(ctx: Context) -> list[int]:
        numbers = ctx.signals(number)
        seen: list[int] = []
        while len(seen) < 2:
            try:
                async with asyncio.timeout(10):
                    seen.append(await numbers.receive())
            except TimeoutError:
                seen.append(-1)
        if -1 in seen:
            seen.append(await numbers.receive())
        return sorted(seen)

    async with flows.engine(races) as engine:
        handle = await engine.client.start(races.bind(), id="w")
        await flows.waiting("w")
    async with Client(flows.store) as client:
        await client.get(races, "w").signal(number, 1)
        flows.clock.advance(10)
        await client.get(races, "w").signal(number, 2)
    async with flows.engine(races):
        assert set(await handle.result()) >= {1, 2}


async def test_a_signal_that_comes_while_the_run_completes_is_seen_before_it_closes(flows: Flows) -> None:
    @workflow
    async def drains(ctx: Context) -> list[int]:
        await ctx.sleep(1)
        numbers = ctx.signals(number)
        seen: list[int] = []
        while (n := numbers.try_receive()) is not None:
            seen.append(n)
        return seen

    async with flows.engine(drains) as engine:
        handle = await engine.client.start(drains.bind(), id="w")
        await flows.waiting("w")
        flows.clock.advance(1)
        acknowledged = []
        for n in range(3):  # new messages hold a run back from closing three times
            try:
                await handle.signal(number, n)
            except WorkflowNotFound:
                break
            acknowledged.append(n)
        seen = await handle.result()
        [end] = await flows.events(handle, "workflow_completed")
        assert len(seen) + end.get("unread", 0) == len(acknowledged)


async def test_signals_that_nobody_read_are_counted_at_the_end(flows: Flows) -> None:
    async with flows.engine(collects) as engine:
        handle = await engine.client.start(collects.bind(0), id="w", signals=[(number, 1), (stop, "now")])
        await handle.result()
        [end] = await flows.events(handle, "workflow_completed")
        assert end["unread"] == 2


async def test_a_signal_to_a_closed_or_unknown_workflow_is_an_error(flows: Flows) -> None:
    async with flows.engine(collects) as engine:
        handle = await engine.client.start(collects.bind(0), id="w")
        await handle.result()
        with pytest.raises(WorkflowNotFound, match="closed as completed"):
            await handle.signal(number, 1)
        with pytest.raises(WorkflowNotFound, match="no open run"):
            await engine.client.get(collects, "nobody").signal(number, 1)


async def test_two_receivers_share_the_signals_in_the_order_in_which_they_came(flows: Flows) -> None:
    @workflow
    async def shares(ctx: Context) -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []

        async def receives(ctx: Context, name: str) -> None:
            seen.append((name, await ctx.signals(number).receive()))

        await asyncio.gather(ctx.go(receives, "a"), ctx.go(receives, "b"))
        return seen

    async with flows.engine(shares) as engine:
        handle = await engine.client.start(shares.bind(), id="w")
        await flows.waiting("w")
        await handle.signal(number, 1)
        await flows.waiting("w")
        await handle.signal(number, 2)
        assert await handle.result() == [("a", 1), ("b", 2)]
        assert types(await flows.events(handle)).count("signal_received") == 2
