"""Messages come to a run by two ways, from the inbox and at first hand; each is received once whatever the timing."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import derecho
from derecho import Client, Context, Signal, Store
from derecho.journal.changes import Deliver
from tests.support.world import engine_of, eventually
from tests.support.wrapped import Gate, wrapped

number = Signal("number", int)


@derecho.workflow
async def collects(ctx: Context, count: int) -> list[int]:
    return [await ctx.signals(number).receive() for _ in range(count)]


async def test_a_message_read_from_the_inbox_before_its_answer_came_is_not_taken_again(store: Store) -> None:
    answers, in_turn, go_on = Gate(), threading.Event(), threading.Event()

    @derecho.workflow
    async def slow(ctx: Context) -> list[int]:
        first = await ctx.signals(number).receive()
        in_turn.set()
        go_on.wait()
        return [first, await ctx.signals(number).receive()]

    async def commit(original: Callable[..., Any], transitions: Any) -> Any:
        result = await original(transitions)
        if any(isinstance(change, Deliver) for transition in transitions for change in transition):
            await answers.passed()
        return result

    async def asleep() -> bool:
        row = await store.find_run("w")
        return row is not None and row.tasks == 1 and row.claim is None and not len(engine.workflows.runs)

    async with engine_of(wrapped(store, commit=commit), slow, cache_size=0) as engine:
        handle = await engine.client.start(slow.bind(), id="w")
        await eventually(asleep)
        answers.is_open = False
        sending = asyncio.create_task(handle.signal(number, 0))
        await eventually(in_turn.is_set)  # the claim loop was faster than the answer
        answers.is_open = True
        await sending
        go_on.set()
        await handle.signal(number, 1)
        assert await handle.result(timeout=20) == [0, 1]


async def test_signals_from_inside_and_outside_arrive_once_and_in_order(store: Store) -> None:
    async with engine_of(store, collects) as engine, Client(store) as outside:
        handle = await outside.start(collects.bind(300), id="w")
        for n in range(300):
            await (outside if n % 2 else engine.client).get(collects, "w").signal(number, n)
        assert await handle.result(timeout=30) == list(range(300))
