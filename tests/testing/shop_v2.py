"""The next deploy: `sale` asks for a gift wrap where old runs have none; `careful_sale` guards it."""

import derecho
from derecho import Context
from tests.testing.shop_v1 import paid, reserve, ship


@derecho.activity
async def wrap(item: str) -> str:
    return f"wrapped {item}"


@derecho.workflow
async def sale(ctx: Context, item: str) -> list[str]:
    done = [await wrap.execute(ctx, item)]
    done.append(await reserve.execute(ctx, item))
    done.append(await ctx.signals(paid).receive())
    return [*done, await ship.execute(ctx, item)]


@derecho.workflow("sale")
async def careful_sale(ctx: Context, item: str) -> list[str]:
    done = []
    if ctx.patched("wrap first"):
        done.append(await wrap.execute(ctx, item))
    done.append(await reserve.execute(ctx, item))
    done.append(await ctx.signals(paid).receive())
    return [*done, await ship.execute(ctx, item)]


@derecho.workflow("sale")
async def hashing_sale(ctx: Context, item: str) -> list[str]:
    """What it asks for first depends on the hash seed of the process."""
    done = []
    for name in {"reserve", "wrap", "ship", "weigh", "label", "bill", "thank", "ask"}:
        done.append(await ctx.execute(derecho.activity(name)(reserve.fn).bind(item)))
    return done


@derecho.workflow("sale")
async def slipping_sale(ctx: Context, item: str) -> list[str]:
    done = [await reserve.execute(ctx, item)]
    return [*done, await wrapp.execute(ctx, item)]  # type: ignore[name-defined]  # noqa: F821  # the slip
