"""Changing a workflow that runs: `ctx.patched` sends old runs down the old path and new ones down the new path."""

import asyncio
import sys

import derecho
from derecho import Context, Engine, Signal

go = Signal("go", str)


@derecho.activity
async def charge(order: str) -> str:
    return f"charged {order}"


@derecho.activity
async def check_fraud(order: str) -> str:
    return f"checked {order}"


@derecho.workflow("order")
async def order_yesterday(ctx: Context, order: str) -> list[str]:
    done = [await charge.execute(ctx, order)]
    await ctx.signals(go).receive()
    return done


@derecho.workflow("order")
async def order_today(ctx: Context, order: str) -> list[str]:
    done = []
    if ctx.patched("fraud-check"):
        done.append(await check_fraud.execute(ctx, order))
    done.append(await charge.execute(ctx, order))
    await ctx.signals(go).receive()
    return done


async def main(store: str = "memory:") -> None:
    shared = derecho.open_store(store)
    activities = [charge, check_fraud]
    async with Engine(shared, workflows=[order_yesterday], activities=activities) as engine:
        old = await engine.client.start(order_yesterday.bind("o-1"), id="o-1")
        while "activity_completed" not in [event["type"] for event in await old.history()]:
            await asyncio.sleep(0.01)
    async with Engine(shared, workflows=[order_today], activities=activities) as engine:  # the deploy
        new = await engine.client.start(order_today.bind("o-2"), id="o-2")
        for id in ("o-1", "o-2"):
            handle = engine.client.get(order_today, id)
            await handle.signal(go, "go")
            print(f"{id}: {', '.join(await handle.result())}")
        derecho.replay(order_today, await new.history())
    await shared.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
