"""Parallelism: futures start at once, fibers share memory, asyncio's own tools work, in the same order everywhere."""

import asyncio
import sys

import derecho
from derecho import Context, Engine


@derecho.activity
async def process(item: str) -> str:
    return item.upper()


@derecho.workflow
async def batch(ctx: Context, items: list[str]) -> dict[str, list[str]]:
    # An activity's future starts when it is made; gather only waits.
    gathered = await asyncio.gather(*(process.execute(ctx, item) for item in items))

    # Fibers: only one runs at a time, so they may share a list.
    results: list[str] = []

    async def one(ctx: Context, item: str) -> None:
        results.append(await process.execute(ctx, item))

    for item in items:
        ctx.go(one, item)
    in_time = await ctx.wait_for(lambda: len(results) == len(items), timeout=60)

    # Structured concurrency and deadlines are asyncio's own.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(shout(ctx, item)) for item in items]
    try:
        async with asyncio.timeout(0.05):
            await asyncio.sleep(3600)
    except TimeoutError:
        results.append("too late")

    first = [await future for future in asyncio.as_completed([shout(ctx, item) for item in items])]
    return {
        "gather": gathered,
        "fibers": [*results, f"in time: {in_time}"],
        "group": [task.result() for task in tasks],
        "as_completed": sorted(first),
    }


async def shout(ctx: Context, item: str) -> str:
    return await process.execute(ctx, item) + "!"


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[batch], activities=[process]) as engine:
        for name, values in (await engine.client.run(batch.bind(["ada", "bob"]))).items():
            print(f"{name}: {', '.join(values)}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
