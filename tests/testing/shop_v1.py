"""A workflow as it was deployed first; `shop_v2` is the next deploy."""

import derecho
from derecho import Context, Signal

paid = Signal("paid", str)


@derecho.activity
async def reserve(item: str) -> str:
    return f"reserved {item}"


@derecho.activity
async def ship(item: str) -> str:
    return f"shipped {item}"


@derecho.workflow
async def sale(ctx: Context, item: str) -> list[str]:
    done = [await reserve.execute(ctx, item)]
    done.append(await ctx.signals(paid).receive())
    return [*done, await ship.execute(ctx, item)]


@derecho.workflow
async def retired(ctx: Context) -> None:
    await ctx.signals(paid).receive()
