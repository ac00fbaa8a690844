"""Native code that crashes, and code that never ends: each in a child process, neither a danger to the worker.

python examples/processes.py
"""

import asyncio
import ctypes
import logging

import derecho
from derecho import Context, Engine, RetryPolicy

TWICE = RetryPolicy(initial_interval=0.01, max_attempts=2)


@derecho.activity(run_in="process", retry=TWICE)
def crash() -> None:
    ctypes.string_at(0)  # what a bug in a C library does


@derecho.activity(run_in="process", start_to_close=0.5, retry=RetryPolicy.none())
def spin() -> None:
    while True:
        pass


@derecho.activity(run_in="process")
def square(number: int) -> int:
    return number * number


@derecho.workflow
async def survives(ctx: Context) -> list[str]:
    found: list[str] = []
    try:
        await crash.execute(ctx)
    except derecho.ProcessDied as exc:
        found.append(str(exc))
    try:
        await spin.execute(ctx)
    except derecho.ActivityTimeout as exc:
        found.append(f"stopped by {exc.kind}")
    squares = await asyncio.gather(*(square.execute(ctx, number) for number in range(4)))
    return [*found, f"and the rest goes on: {squares}"]


async def main(address: str = "memory:") -> None:
    async with Engine(address, workflows=[survives], activities=[crash, spin, square]) as engine:
        print("\n".join(await engine.client.run(survives.bind())))


if __name__ == "__main__":  # a child process reads this file, too
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
