"""Child workflows: started in the parent's own commit, each with its own history; their results come back once."""

import asyncio
import sys

import derecho
from derecho import Context, Engine, Signal, WorkflowAlreadyRunning

parcels = Signal("parcel", str)


@derecho.workflow
async def courier(ctx: Context, town: str) -> str:
    parcel = await ctx.signals(parcels).receive()
    if parcel == "glass":
        raise ValueError("it broke")
    return f"{parcel} brought to {town}"


@derecho.workflow_ref("courier")  # by name: another process may have the code
async def some_courier(ctx: Context, town: str) -> str:
    raise NotImplementedError


@derecho.workflow
async def depot(ctx: Context) -> list[str]:
    first = ctx.child(courier.bind("Bari"), id="courier-bari")
    await first.started()
    taken = ""
    try:
        await ctx.child(courier.bind("Bari"), id="courier-bari")
    except WorkflowAlreadyRunning:
        taken = "the id was taken, and the courier who has it was left alone"
    second = ctx.child(some_courier.bind("Lecce"))
    await first.signal(parcels, "a lamp")
    await second.signal(parcels, "glass")
    try:
        lecce = await second
    except ValueError as error:  # the author's own class
        lecce = f"Lecce got nothing: {error}"
    return [await first, lecce, taken]


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[depot, courier]) as engine:
        for line in await engine.client.run(depot.bind(), id="depot"):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
