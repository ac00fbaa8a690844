"""An engine that is asked to stop while its store is away stops, and leaves its work to recovery."""

import asyncio
from typing import Any

import derecho
from derecho import Context, Engine, MemoryStore, Signal
from derecho.errors import StoreUnavailable
from tests.support.wrapped import wrapped

GO = Signal("go", int)


@derecho.workflow
async def waiter(ctx: Context) -> int:
    total = 0
    while (number := await ctx.signals(GO).receive()) >= 0:
        total += number
    return total


async def test_it_stops_although_the_store_takes_nothing_any_more() -> None:
    store = MemoryStore()
    is_away = False
    asked = asyncio.Event()

    async def commit(original: Any, transitions: Any) -> Any:
        if is_away:
            asked.set()
            raise StoreUnavailable("nobody is there")
        return await original(transitions)

    engine = Engine(wrapped(store, commit=commit), workflows=[waiter], shutdown_timeout=0.2, lease=0.5)
    await engine.__aenter__()
    client = derecho.Client(store)
    await engine.client.start(waiter.bind(), id="w")
    is_away = True
    await client.get(waiter, "w").signal(GO, 1)  # its turn cannot be committed
    await asked.wait()
    await asyncio.wait_for(engine.__aexit__(None, None, None), 60)
    async with Engine(store, workflows=[waiter], lease=0.5) as next_one:
        await next_one.client.get(waiter, "w").signal(GO, -1)
        assert await next_one.client.get(waiter, "w").result(timeout=60) == 1
    await client.close()
