"""Timers: durable and cancellable; a week of downtime makes them late, never lost."""

import asyncio
import sys
from datetime import timedelta

import derecho
from derecho import Context, Engine


@derecho.workflow
async def reminder(ctx: Context) -> list[str]:
    begin = ctx.now()
    await ctx.sleep(0.05, summary="a week, in real life")
    slept = ctx.now() - begin

    # A timer that is no longer wanted is removed from the store.
    deadline = ctx.new_timer(timedelta(days=30))
    deadline.cancel()

    # An instant that is past is reached at once.
    reached = await ctx.sleep_until(begin)
    return [
        f"slept at least 50 ms: {slept >= timedelta(milliseconds=50)}",
        f"woke at the start: {reached == ctx.now()}",
    ]


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[reminder]) as engine:
        for line in await engine.client.run(reminder.bind()):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
