"""A program that is debugged: records a run, then stops in it at the event that is asked for."""

import asyncio
import sys

import derecho
from derecho import Context, History
from derecho.testing import Environment


@derecho.activity
async def charge(order: str) -> str:
    raise NotImplementedError


@derecho.workflow
async def pay(ctx: Context, order: str) -> str:
    secret = "tea"
    charged = await charge.execute(ctx, order)
    await ctx.sleep(60)
    final = charged + secret
    return final


async def record() -> History:
    async with Environment() as env:
        env.stub_value(charge, "ch_1")
        run = env.start(pay.bind("o1"))
        await run.result()
        return await run.history()


if __name__ == "__main__":
    derecho.debug(asyncio.run(record()), pay, at=int(sys.argv[1]))
    print("the end")
