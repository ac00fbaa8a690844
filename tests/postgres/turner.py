"""An engine process for tests: `python -m tests.postgres.turner ADDRESS AFFINITY LEASE` says who took which turn."""

import asyncio
import os
import sys

import derecho
from derecho import Context, Engine, PostgresStore, Signal
from derecho.clock import SECOND
from derecho.stores.postgres import store as postgres

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
    address, affinity, lease = sys.argv[1:]
    # A run whose home lives is left to it for as long as a test may take, so that only `affinity` decides who comes.
    postgres.PATIENCE_WITH_HOME = 3600 * SECOND
    store = PostgresStore(address, worker_affinity=affinity == "on")
    await Engine(store, workflows=[turns], lease=float(lease)).run()


if __name__ == "__main__":
    asyncio.run(main())
