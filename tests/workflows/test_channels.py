"""Channels between the fibers of one workflow: buffered, unbuffered, closed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from derecho import Channel, ChannelClosed, Context, Selector, activity, workflow
from tests.support.flows import Flows


@activity
async def square(n: int) -> int:
    return n * n


async def handshake(ctx: Context) -> Any:
    """Without a buffer a send ends when the value was taken."""
    channel, order = ctx.channel(int), []

    async def sends(ctx: Context) -> None:
        await channel.send(1)
        order.append("sent")

    ctx.go(sends)
    await asyncio.sleep(0)
    order.append("receiving")
    value = await channel.receive()
    await asyncio.sleep(0)
    return [*order, value]


async def buffered(ctx: Context) -> Any:
    """A buffer takes its capacity without a receiver, and not one more."""
    channel, sent = ctx.channel(int, capacity=2), []

    async def sends(ctx: Context) -> None:
        for n in range(4):
            await channel.send(n)
            sent.append(n)

    ctx.go(sends)
    await asyncio.sleep(0)
    before = list(sent)
    return [before, [await channel.receive() for _ in range(4)]]


async def pipeline(ctx: Context) -> Any:
    """Two stages and an end."""
    numbers, squares = ctx.channel(int), ctx.channel(int, capacity=1)

    async def produce(ctx: Context) -> None:
        for n in range(4):
            await numbers.send(n)
        numbers.close()

    async def work(ctx: Context) -> None:
        async for n in numbers:
            await squares.send(await square.execute(ctx, n))
        squares.close()

    ctx.go(produce)
    ctx.go(work)
    return [n async for n in squares]


async def shared_by_workers(ctx: Context) -> Any:
    """Each value goes to one of several receivers, in order of their waiting."""
    channel: Channel[int] = ctx.channel(int)
    taken: list[list[Any]] = []

    async def worker(ctx: Context, name: str) -> None:
        async for n in channel:
            taken.append([name, n])

    fibers = [ctx.go(worker, name) for name in "ab"]
    await asyncio.sleep(0)
    for n in range(4):
        await channel.send(n)
    channel.close()
    await asyncio.gather(*fibers)
    return [sorted(n for _, n in taken), sorted({name for name, _ in taken})]


async def closed(ctx: Context) -> Any:
    channel = ctx.channel(int, capacity=1)
    await channel.send(1)
    channel.close()
    errors = []
    first = await channel.receive()
    for attempt in (channel.receive, lambda: channel.send(2)):
        try:
            await attempt()
        except ChannelClosed as exc:
            errors.append(str(exc).split()[0])
    return [first, errors]


async def closed_under_a_sender(ctx: Context) -> Any:
    channel = ctx.channel(int)

    async def sends(ctx: Context) -> str:
        try:
            await channel.send(1)
        except ChannelClosed:
            return "told"
        return "sent"

    fiber = ctx.go(sends)
    await asyncio.sleep(0)
    channel.close()
    return await fiber


async def closed_under_a_receiver(ctx: Context) -> Any:
    channel = ctx.channel(int)

    async def receives(ctx: Context) -> list[int]:
        return [n async for n in channel]

    fiber = ctx.go(receives)
    await asyncio.sleep(0)
    channel.close()
    return await fiber


async def cancelled_receiver(ctx: Context) -> Any:
    channel = ctx.channel(int)
    try:
        async with asyncio.timeout(0):
            await channel.receive()
    except TimeoutError:
        pass

    async def sends(ctx: Context) -> None:
        await channel.send(7)

    ctx.go(sends)
    return await channel.receive()


async def cancelled_sender(ctx: Context) -> Any:
    channel = ctx.channel(int)
    for n in (1, 2):
        try:
            async with asyncio.timeout(0):
                await channel.send(n)
        except TimeoutError:
            pass

    async def sends(ctx: Context) -> None:
        await channel.send(3)

    ctx.go(sends)
    return await channel.receive()


async def received_and_cancelled_at_once(ctx: Context) -> Any:
    """The value was handed over and the receiver cancelled before it woke: the next one gets it."""
    channel = ctx.channel(int, capacity=1)

    async def receives(ctx: Context) -> int:
        return await channel.receive()

    fiber = ctx.go(receives)
    await asyncio.sleep(0)
    await channel.send(1)
    fiber.cancel()
    return await channel.receive()


async def selected(ctx: Context) -> Any:
    left, right = ctx.channel(int), ctx.channel(str)

    async def feeds(ctx: Context) -> None:
        await right.send("r")
        await left.send(1)

    ctx.go(feeds)
    selector: Selector[Any] = Selector()
    selector.add(left.receive_future(), lambda n: ["left", n]).add(right.receive_future(), lambda s: ["right", s])
    return [await selector.select(ctx), await selector.select(ctx)]


async def lost_a_select(ctx: Context) -> Any:
    """What a losing case was given goes back to the channel, in its place."""
    first, second = ctx.channel(int, capacity=3), ctx.channel(int, capacity=3)
    for n in (1, 2):
        await first.send(n)
        await second.send(10 * n)
    selector: Selector[int] = Selector()
    selector.add(first.receive_future(), lambda n: n).add(second.receive_future(), lambda n: n)
    chosen = await selector.select(ctx)
    return [chosen, await first.receive(), await second.receive(), await second.receive()]


CASES: dict[Callable[[Context], Awaitable[Any]], Any] = {
    handshake: ["receiving", "sent", 1],
    buffered: [[0, 1], [0, 1, 2, 3]],
    pipeline: [0, 1, 4, 9],
    shared_by_workers: [[0, 1, 2, 3], ["a", "b"]],
    closed: [1, ["receive", "send"]],
    closed_under_a_sender: "told",
    closed_under_a_receiver: [],
    cancelled_receiver: 7,
    cancelled_sender: 3,
    received_and_cancelled_at_once: 1,
    selected: [["left", 1], ["right", "r"]],
    lost_a_select: [1, 2, 10, 20],
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_channels_pass_values_between_fibers(flows: Flows, case: Any) -> None:
    flow = workflow(case.__name__)(case)
    async with flows.engine(flow, square) as engine:
        handle = await engine.client.start(flow.bind(), id="w")
        assert await handle.result() == CASES[case]
        await flows.check_replay(handle, flow)


async def test_a_negative_capacity_is_refused(flows: Flows) -> None:
    @workflow(fail_on=(ValueError,))
    async def negative(ctx: Context) -> str:
        try:
            ctx.channel(int, capacity=-1)
        except ValueError as exc:
            return str(exc)
        return ""

    async with flows.engine(negative) as engine:
        assert "cannot be negative" in await engine.client.run(negative.bind(), id="w")
