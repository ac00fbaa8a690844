"""An import that goes on where it was: progress survives the attempt that reported it.

python examples/heartbeats.py
"""

import asyncio
import logging

import derecho
from derecho import Context, Engine, RetryPolicy

ROWS = [f"row {number}" for number in range(10)]


@derecho.activity(heartbeat_timeout=30, retry=RetryPolicy(initial_interval=0.01))
async def import_rows() -> int:
    act = derecho.current_activity()
    first = (act.last_heartbeat(int) or 0) if act.attempt > 1 else 0
    print(f"attempt {act.attempt} begins at row {first}")
    for number in range(first, len(ROWS)):
        if number == 6 and act.attempt == 1:
            raise ConnectionError("the line is down")
        await asyncio.sleep(0)  # write ROWS[number] somewhere
        act.heartbeat(number + 1)  # cheap: only the newest is written, now and then
    return len(ROWS)


@derecho.workflow
async def nightly_import(ctx: Context) -> int:
    return await import_rows.execute(ctx)


async def main(address: str = "memory:") -> None:
    async with Engine(address, workflows=[nightly_import], activities=[import_rows]) as engine:
        print(await engine.client.run(nightly_import.bind()), "rows")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
