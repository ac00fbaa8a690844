"""Continue-as-new: a workflow that never ends starts over with a fresh history, and carries on with what it knows."""

import asyncio
import sys

import derecho
from derecho import Context, Engine, Signal

FEED = ["a", "b", "c", "d", "e"]
stop = Signal("stop", str)


@derecho.activity
async def poll(cursor: int) -> str:
    return FEED[cursor]


@derecho.workflow
async def poller(ctx: Context, cursor: int = 0, seen: str = "") -> str:
    for _ in range(2):  # in real life: while not ctx.should_continue_as_new
        if cursor == len(FEED):
            return f"{seen}, then {await ctx.signals(stop).receive()}"
        seen += await poll.execute(ctx, cursor)
        cursor += 1
    raise ctx.continue_as_new(poller.bind(cursor, seen))


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[poller], activities=[poll]) as engine:
        handle = await engine.client.start(poller.bind(), id="poller")
        await handle.signal(stop, "stopped")  # unread signals move to the next run
        print(await handle.result())  # clients follow
        runs = [run.status async for run in engine.client.list(workflow_type="poller")]
        print(f"{len(runs)} runs, {runs.count('continued_as_new')} of them continued as new")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
