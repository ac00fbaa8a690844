"""Worker programs that tests start as processes, and kill: `python -m tests.activities.programs NAME DATABASE ...`."""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import derecho
from derecho import ActivityDefinition, Context, Engine, RetryPolicy, WorkflowDefinition
from tests.activities import crashers

LEASE = 0.6
PATIENT = RetryPolicy(initial_interval=0)


def note(folder: str, name: str, line: str) -> None:
    with open(Path(folder) / name, "a") as file:
        file.write(f"{line}\n")


@derecho.activity(retry=PATIENT)
def hang(folder: str) -> int:
    """Writes down that an attempt began, and ends when it is told to."""
    act = derecho.current_activity()
    note(folder, "attempts", f"{act.attempt} {act.idempotency_key}")
    while not (Path(folder) / "finish").exists():
        time.sleep(0.01)
    return act.attempt


@derecho.activity(retry=PATIENT)
async def count_up(folder: str, goal: int) -> int:
    """Counts to a goal with heartbeats, from where the attempt before it came; writes down where it began."""
    act = derecho.current_activity()
    begin = act.last_heartbeat(int) or 0
    note(folder, "begins", str(begin))
    for count in range(begin, goal + 1):
        act.heartbeat(count)
        await asyncio.sleep(0.002)
    return goal


@derecho.activity(retry=RetryPolicy(initial_interval=0, max_attempts=2))
def poison() -> None:
    """Takes the worker along, each time."""
    os._exit(9)


@derecho.activity(transactional=True, retry=PATIENT)
async def book(number: int) -> int:
    """One row for each booking, whatever is killed when."""
    connection = derecho.current_activity().transaction
    await connection.execute("INSERT INTO bookings VALUES (?, 'activity')", (number,))
    await asyncio.sleep(0.001)
    return number


async def book_in_step(connection: Any, number: int) -> int:
    await connection.execute("INSERT INTO bookings VALUES (?, 'step')", (number,))
    await asyncio.sleep(0.001)
    return number


@derecho.workflow
async def hanging(ctx: Context, folder: str) -> int:
    return await hang.execute(ctx, folder)


@derecho.workflow
async def counting(ctx: Context, folder: str, goal: int) -> int:
    return await ctx.execute(count_up.bind(folder, goal), heartbeat_timeout=1)


@derecho.workflow
async def poisoned(ctx: Context) -> None:
    await poison.execute(ctx)


@derecho.workflow
async def booking(ctx: Context, number: int) -> int:
    await book.execute(ctx, number)
    return await ctx.transaction(book_in_step, number)


@derecho.workflow
async def spinning(ctx: Context, pid_file: str) -> None:
    await crashers.spin.execute(ctx, pid_file)


WORKFLOWS: list[WorkflowDefinition] = [hanging, counting, poisoned, booking, spinning]
ACTIVITIES: list[ActivityDefinition] = [hang, count_up, poison, book, crashers.spin]


def new_engine(database: str) -> Engine:
    return Engine(f"sqlite:///{database}", workflows=WORKFLOWS, activities=ACTIVITIES, lease=LEASE)


async def main(name: str, database: str, *args: str) -> None:
    async with new_engine(database) as engine:
        if name == "spin":
            await engine.client.run(spinning.bind(args[0]))
        await asyncio.Event().wait()


if __name__ == "__main__":
    parent = os.getppid()

    def orphaned() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=orphaned, daemon=True).start()
    asyncio.run(main(*sys.argv[1:]))
