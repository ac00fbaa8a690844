"""Channels: fibers of one run hand values to each other; closing one ends the loop that reads it."""

import asyncio
import sys

import derecho
from derecho import Channel, Context, Engine


@derecho.activity
async def measure(spot: int) -> int:
    return spot * spot


@derecho.workflow
async def survey(ctx: Context, spots: int) -> list[int]:
    readings = ctx.channel(int, capacity=2)
    ctx.go(producer, readings, spots)
    return [reading async for reading in readings]


async def producer(ctx: Context, readings: Channel[int], spots: int) -> None:
    for spot in range(spots):
        await readings.send(await measure.execute(ctx, spot))  # waits while the channel is full
    readings.close()


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[survey], activities=[measure]) as engine:
        print(await engine.client.run(survey.bind(5)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
