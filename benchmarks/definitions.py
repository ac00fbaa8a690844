"""The workflows and activities of all workloads: no work in them, small JSON in and out."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import derecho
from derecho import Activity, Context, Signal, Workflow

ITEMS = Signal("item", int)
GO = Signal("go", int)


@derecho.activity("noop")
async def noop(number: int) -> int:
    return number


@derecho.activity("busy")
async def busy(number: int) -> int:
    """A millisecond of CPU, as small real work costs."""
    end = time.thread_time() + 0.001
    while time.thread_time() < end:
        pass
    return number


@derecho.workflow("one-activity")
async def one_activity(ctx: Context, number: int) -> int:
    return await noop.execute(ctx, number)


@derecho.workflow("nothing")
async def nothing(ctx: Context, number: int) -> int:
    return number


@derecho.workflow("activities-in-sequence")
async def activities_in_sequence(ctx: Context, count: int) -> int:
    return sum([await noop.execute(ctx, number) for number in range(count)])


@derecho.workflow("busy-activities")
async def busy_activities(ctx: Context, count: int) -> int:
    return sum([await busy.execute(ctx, number) for number in range(count)])


@derecho.workflow("steps-in-sequence")
async def steps_in_sequence(ctx: Context, count: int) -> int:
    return sum([await ctx.step("noop", noop, number) for number in range(count)])


@derecho.workflow("activities-in-parallel")
async def activities_in_parallel(ctx: Context, count: int) -> int:
    return sum(await asyncio.gather(*(noop.execute(ctx, number) for number in range(count))))


@derecho.workflow("sleep")
async def sleep(ctx: Context, seconds: float) -> float:
    """The instant at which the timer was due, as seconds since 1970."""
    return (await ctx.sleep(timedelta(seconds=seconds))).timestamp()


@derecho.workflow("collect")
async def collect(ctx: Context, count: int) -> int:
    items = ctx.signals(ITEMS)
    return sum([await items.receive() for _ in range(count)])


@derecho.workflow("steps-then-wait")
async def steps_then_wait(ctx: Context, count: int) -> int:
    total = sum([await ctx.step("noop", noop, number) for number in range(count)])
    return total + await ctx.signals(GO).receive()


WORKFLOWS: list[Workflow[Any, Any]] = [
    one_activity,
    nothing,
    activities_in_sequence,
    busy_activities,
    steps_in_sequence,
    activities_in_parallel,
    sleep,
    collect,
    steps_then_wait,
]
ACTIVITIES: list[Activity[Any, Any]] = [noop, busy]
