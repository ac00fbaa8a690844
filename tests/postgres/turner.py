"""An engine process for tests: `python -m tests.postgres.turner ADDRESS AFFINITY` says who took which turn."""

import asyncio
import os
import sys

import derecho
from derecho import Context, Engine, PostgresStore, Signal

TURNS = 6
go = Signal("go", int)


@derecho.workflow
async def turns(ctx: Context) -> list[int]:
    """The process of each turn that a signal led to."""
    signals = ctx.signals(go)
    pids = []
    for _ in range(TURNS):
        await signals.receive()
        pids.append(ctx.side_effect(os.getpid))
    return pids


async def main() -> None:
    store = PostgresStore(sys.argv[1], worker_affinity=sys.argv[2] == "on")
    await Engine(store, workflows=[turns], lease=1.5).run()


if __name__ == "__main__":
    asyncio.run(main())
