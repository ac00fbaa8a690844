"""A worker process for tests: `python -m tests.postgres.worker ADDRESS LEDGER`."""

import asyncio
import os
import sys

import derecho
from derecho import Context, Engine


@derecho.activity
async def effect(order: str, step: int) -> int:
    """Append to the ledger, as an outside system would."""
    activity = derecho.current_activity()
    write(f"begin {activity.idempotency_key} {activity.attempt} {os.getpid()}")
    await asyncio.sleep(0.005)
    return step


@derecho.workflow
async def order(ctx: Context, name: str) -> int:
    total = 0
    for step in range(5):
        total += await effect.execute(ctx, name, step)
        await ctx.sleep(0.02)
    return total


def write(line: str) -> None:
    ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, (line + "\n").encode())
    os.close(ledger)


async def main() -> None:
    await Engine(sys.argv[1], workflows=[order], activities=[effect], lease=0.8).run()


if __name__ == "__main__":
    asyncio.run(main())
