"""A worker process for the kill tests: `python -m tests.faults.worker DATABASE LEDGER`."""

import asyncio
import os
import sys
import time

import derecho
from derecho import Context, Engine, Signal

GO = Signal("go", int)


@derecho.activity
async def effect(order: str, step: str) -> str:
    """Append begin and end to the ledger, as an outside system would; the file outlives the process."""
    activity = derecho.current_activity()
    write(f"begin {activity.idempotency_key} {activity.attempt} {time.time_ns() // 1000}")
    await asyncio.sleep(0.002)
    write(f"end {activity.idempotency_key} {activity.attempt} {time.time_ns() // 1000}")
    return f"{order}:{step}"


@derecho.workflow
async def order(ctx: Context, name: str) -> list[str]:
    done = [await effect.execute(ctx, name, "reserve")]
    await ctx.sleep(0.05)
    done += await asyncio.gather(*(effect.execute(ctx, name, f"item-{n}") for n in range(3)))
    done.append(str(await ctx.signals(GO).receive()))

    async def note() -> str:
        return "noted"

    done.append(await ctx.step("note", note))
    done.append(await effect.execute(ctx, name, "ship"))
    return done


def write(line: str) -> None:
    ledger = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(ledger, (line + "\n").encode())
    os.close(ledger)


async def main() -> None:
    engine = Engine(f"sqlite:///{sys.argv[1]}", workflows=[order], activities=[effect], lease=0.8)
    await engine.run()


if __name__ == "__main__":
    asyncio.run(main())
