"""The work of a run grows with its history, not with its square: counted in calls, not in seconds."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from derecho import Context, Signal, activity, workflow
from derecho.journal import events as ev
from tests.runtime.conftest import DriveOf
from tests.support.drive import Drive

number = Signal("number", int)


@activity
async def work(n: int) -> int:
    return n


@workflow
async def one_by_one(ctx: Context, count: int) -> int:
    return sum([await work.execute(ctx, n) for n in range(count)])


@workflow
async def side_by_side(ctx: Context, count: int) -> int:
    return sum(await asyncio.gather(*(work.execute(ctx, n) for n in range(count))))


@workflow
async def fibers(ctx: Context, count: int) -> int:
    async def one(ctx: Context, n: int) -> int:
        return await work.execute(ctx, n)

    return sum(await asyncio.gather(*(ctx.go(one, n) for n in range(count))))


@workflow
async def in_groups(ctx: Context, count: int) -> int:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.wait_for(work.execute(ctx, n), 60)) for n in range(count)]
    return sum(task.result() for task in tasks)


@workflow
async def signals(ctx: Context, count: int) -> int:
    return sum([await ctx.signals(number).receive() for _ in range(count)])


def play(run: Drive, count: int) -> None:
    """One fact in each workflow task."""
    scheduled: list[int] = []
    seen = 0
    run.begin()
    for n in range(count):
        scheduled += [i + 1 for i in range(seen, len(run.events)) if isinstance(run.events[i], ev.ActivityScheduled)]
        seen = len(run.events)
        if run.workflow is signals:
            run.task(run.signal(number, n))
        else:
            run.task(ev.ActivityCompleted(scheduled[n], run.converter.encode(n, "it"), run.at))


def calls_of(action: Callable[[], None]) -> int:
    """How many Python and C functions run."""
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("program", [one_by_one, side_by_side, fibers, in_groups, signals], ids=lambda w: str(w.name))
def test_twice_the_activities_are_twice_the_calls(drive: DriveOf, program: Any) -> None:
    def cost(count: int) -> tuple[int, int]:
        run = drive(program, count)
        live = calls_of(lambda: play(run, count))
        assert run.is_over
        return live, calls_of(run.replay)

    small, large = cost(100), cost(400)
    for before, after in zip(small, large, strict=True):
        assert after < 4.6 * before
