"""Cancellation is asyncio's: delivered once, reaches what is awaited, and clean-up is durable like everything else."""

import asyncio
import sys
from datetime import timedelta

import derecho
from derecho import Context, Engine, WorkflowCancelled, WorkflowTerminated

log: list[str] = []


@derecho.activity
async def note(text: str) -> None:
    log.append(text)


@derecho.workflow
async def tenant(ctx: Context) -> None:
    async with ctx.shield():  # not in the middle of this
        await note.execute(ctx, "moved in")
        await ctx.sleep(0.05)
        await note.execute(ctx, "paid the rent")
    try:
        await ctx.sleep(timedelta(days=365))
    finally:
        await note.execute(ctx, "moved out")


@derecho.workflow
async def hermit(ctx: Context) -> None:
    while True:
        try:
            await ctx.sleep(timedelta(days=365))
        except asyncio.CancelledError:
            continue  # he will not go


async def main(store: str = "memory:") -> None:
    log.clear()
    async with Engine(store, workflows=[tenant, hermit], activities=[note]) as engine:
        lease = await engine.client.start(tenant.bind(), id="tenant")
        while not log:
            await asyncio.sleep(0.01)
        await lease.cancel("the house is sold")
        try:
            await lease.result()
        except WorkflowCancelled as error:
            print(f"{error}; {', '.join(log)}")

        stubborn = await engine.client.start(hermit.bind(), id="hermit")
        await stubborn.cancel("please", timeout=0.1)  # closed by force when it does not end by itself
        try:
            await stubborn.result()
        except WorkflowCancelled as error:
            print(error)

        another = await engine.client.start(hermit.bind(), id="hermit-2")
        await another.terminate("enough")  # at once, whatever the code does
        try:
            await another.result()
        except WorkflowTerminated as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
