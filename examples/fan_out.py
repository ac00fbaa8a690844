"""Fan-out: `ctx.map` runs many calls side by side, at most `limit` really in flight, results in order."""

import asyncio
import sys

import derecho
from derecho import Context, Engine

in_flight: list[int] = []


@derecho.activity
async def resize(picture: int) -> int:
    in_flight.append(picture)
    await asyncio.sleep(0.001)
    seen = len(in_flight)
    in_flight.remove(picture)
    return seen


@derecho.workflow
async def album(ctx: Context, pictures: int) -> int:
    at_once = await ctx.map([resize.bind(picture) for picture in range(pictures)], limit=4)
    return max(at_once)


@derecho.workflow
async def library(ctx: Context, albums: int) -> int:
    return max(await ctx.map([album.bind(20) for _ in range(albums)], limit=1))


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[library, album], activities=[resize]) as engine:
        most = await engine.client.run(library.bind(3))
        print(f"60 pictures, never more than 4 at once: {most <= 4}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
