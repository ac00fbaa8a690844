"""Small things that are not deterministic: recorded once, the same on every replay."""

import asyncio
import itertools
import sys
import time
from uuid import UUID

import derecho
from derecho import Context, Engine, RetryPolicy

tries = itertools.count(1)


@derecho.workflow
async def lottery(ctx: Context) -> tuple[float, UUID, int, str]:
    clock = ctx.side_effect(time.time, type=float)  # runs once in the life of the run
    ticket = ctx.uuid4()
    number = ctx.random.randint(1, 90)

    async def draw(prefix: str) -> str:  # a step: a small closure that may do I/O, cheaper than an activity
        if next(tries) < 2:
            raise ConnectionError("try again")
        return f"{prefix}-{number}"

    drawn = await ctx.step("draw", draw, "ball", retry=RetryPolicy(initial_interval=0.01), timeout=5)
    return clock, ticket, number, drawn


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[lottery]) as engine:
        handle = await engine.client.start(lottery.bind())
        clock, ticket, number, drawn = await handle.result()
        print(f"a recent time: {abs(time.time() - clock) < 60}, a UUID of version {ticket.version}")
        print(f"drawn what was chosen: {drawn == f'ball-{number}'}")
        ran = next(tries) - 1
        derecho.replay(lottery, await handle.history())
        print(f"a replay runs the step {next(tries) - 2 - ran} times")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
