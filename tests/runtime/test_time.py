"""Waiting in a workflow is a durable timer, whoever asks for it."""

import asyncio
import math
from contextvars import Context as Variables
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from derecho import Context, activity, workflow
from derecho.journal import events as ev
from tests.runtime.conftest import DriveOf
from tests.support.drive import names


@activity
async def work() -> str:
    return "done"


def test_sleeping_in_each_way_is_a_timer(drive: DriveOf) -> None:
    @workflow
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep(timedelta(days=7))
        await ctx.sleep(1.5)
        await asyncio.sleep(30)
        await ctx.sleep_until(ctx.now() + timedelta(hours=1))

    run = drive(sleeps)
    asked = [names(run.begin())]
    for nth, seconds in enumerate([604_800, 1.5, 30, 3_600], 1):
        asked.append(names(run.task(run.fired(nth), after=seconds)))
    assert asked == [["timer 604800"], ["timer 1.5"], ["timer 30"], ["timer 3600"], ["workflow_completed"]]
    run.check()


def test_a_timer_gives_the_instant_at_which_it_was_due(drive: DriveOf) -> None:
    @workflow
    async def sleeps(ctx: Context) -> bool:
        start = ctx.now()
        return await ctx.sleep(60) == start + timedelta(seconds=60)

    run = drive(sleeps)
    [timer] = run.begin()
    assert isinstance(timer, ev.TimerScheduled)
    run.task(ev.TimerFired(3, timer.fire_at), after=75)
    assert run.result


@pytest.mark.parametrize("duration", [0, -5, timedelta(0)])
def test_no_wait_is_no_timer(drive: DriveOf, duration: float) -> None:
    @workflow
    async def sleeps(ctx: Context) -> list[bool]:
        now = ctx.now()
        return [await ctx.sleep(duration) == now, await ctx.sleep_until(datetime(2001, 1, 1, tzinfo=UTC)) == now]

    run = drive(sleeps)
    assert names(run.begin()) == ["workflow_completed"]
    assert run.result == [True, True]


def test_no_wait_still_lets_the_other_fibers_run(drive: DriveOf) -> None:
    @workflow
    async def takes_turns(ctx: Context) -> list[str]:
        order: list[str] = []

        async def fiber(ctx: Context, name: str) -> None:
            for _ in range(2):
                order.append(name)
                await ctx.sleep(0)

        await asyncio.gather(ctx.go(fiber, "a"), ctx.go(fiber, "b"))
        return order

    run = drive(takes_turns)
    run.begin()
    assert run.result == ["a", "b", "a", "b"]


def test_an_instant_without_a_zone_is_refused(drive: DriveOf) -> None:
    @workflow
    async def guesses(ctx: Context) -> str:
        try:
            await ctx.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001  (that is the point)
        except ValueError as exc:
            return str(exc)
        return "accepted"

    run = drive(guesses)
    run.begin()
    assert "has no time zone" in run.result


def test_call_later_is_durable_and_can_be_cancelled(drive: DriveOf) -> None:
    @workflow
    async def calls(ctx: Context) -> list[str]:
        loop, called = asyncio.get_running_loop(), list[str]()
        loop.call_later(60, called.append, "first")
        second = loop.call_later(120, called.append, "second")
        loop.call_at(loop.time() + 180, called.append, "third")
        second.cancel()
        await ctx.wait_for(lambda: len(called) == 2)
        return [*called, str(second.cancelled())]

    run = drive(calls)
    assert names(run.begin()) == ["timer 60", "timer 120", "timer 180", "timer_cancelled"]
    run.task(run.fired(1), after=60)
    run.task(run.fired(3), after=120)
    assert run.result == ["first", "third", "True"]
    run.check()


def test_a_timeout_is_a_timer_that_is_dropped_when_the_work_is_done(drive: DriveOf) -> None:
    @workflow
    async def bounded(ctx: Context) -> str:
        async with asyncio.timeout(60):
            return await work.execute(ctx)

    run = drive(bounded)
    assert names(run.begin()) == ["timer 60", "work"]
    assert names(run.task(run.completed("work", "done"))) == ["timer_cancelled", "workflow_completed"]
    run.check()


def test_a_timeout_that_runs_out_cancels_the_work(drive: DriveOf) -> None:
    @workflow
    async def bounded(ctx: Context) -> str:
        try:
            return await asyncio.wait_for(work.execute(ctx), 60)
        except TimeoutError:
            return "too late"

    run = drive(bounded)
    run.begin()
    assert names(run.task(run.fired(), after=60)) == ["activity_cancel_requested", "workflow_completed"]
    assert run.result == "too late"
    run.check()


def test_a_timer_that_fired_and_was_cancelled_has_one_outcome(drive: DriveOf) -> None:
    @workflow
    async def undecided(ctx: Context) -> str:
        timer = ctx.new_timer(60)
        await work.execute(ctx)
        timer.cancel()
        try:
            await timer
        except asyncio.CancelledError:
            return "cancelled"
        return "fired"

    both = drive(undecided)
    both.begin()
    assert names(both.task(both.completed("work", "done"), both.fired(), after=60)) == ["workflow_completed"]
    assert both.result == "fired"
    both.check()
    late = drive(undecided)
    late.begin()
    assert names(late.task(late.completed("work", "done"), after=59)) == ["timer_cancelled", "workflow_completed"]
    assert late.result == "cancelled"
    late.check()


def test_the_loops_clock_keeps_microseconds_in_a_long_life(drive: DriveOf) -> None:
    @workflow
    async def old(ctx: Context) -> list[float]:
        loop = asyncio.get_running_loop()
        await ctx.sleep(timedelta(days=3_650))
        one = loop.time()
        await asyncio.sleep(0.000_001)
        return [one, loop.time() - one]

    run = drive(old)
    run.begin()
    run.task(run.fired(), after=timedelta(days=3_650))
    run.task(run.fired(2), after=0.000_001)
    assert run.result == pytest.approx([315_360_000.0, 0.000_001], rel=0.1)


def test_a_wait_that_is_no_time_says_what_it_takes(drive: DriveOf) -> None:
    @workflow
    async def sleeps(ctx: Context) -> str:
        try:
            await ctx.sleep("3")  # type: ignore[arg-type]
        except TypeError as exc:
            return str(exc)
        return "slept"

    run = drive(sleeps)
    run.begin()
    assert run.result == "a duration is a timedelta or a number of seconds, not '3'"


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), timedelta.max, 1e300])
def test_a_wait_that_no_clock_can_count_is_an_error_at_its_line(drive: DriveOf, duration: float) -> None:
    @workflow
    async def sleeps(ctx: Context) -> str:
        try:
            await ctx.sleep(duration)
        except (ValueError, OverflowError) as exc:
            return type(exc).__name__
        return "slept"

    run = drive(sleeps)
    run.begin()
    assert not run.is_over or run.result in ("ValueError", "OverflowError")


def test_waiting_for_ever_is_no_timer(drive: DriveOf) -> None:
    """asyncio, and anyio with it, take infinity for that."""

    @workflow
    async def waits(ctx: Context) -> str:
        try:
            async with asyncio.timeout(1e14):
                await asyncio.sleep(math.inf)
        except asyncio.CancelledError:
            return "cancelled"
        return "never"

    run = drive(waits)
    assert names(run.begin()) == []
    run.task(run.cancel())
    assert run.result == "cancelled"
    run.check()


@pytest.mark.parametrize("duration", [timedelta.max, 1e14])
def test_a_timer_that_no_database_can_hold_is_refused_where_it_is_asked_for(drive: DriveOf, duration: Any) -> None:
    @workflow
    async def sleeps(ctx: Context) -> str:
        try:
            await ctx.sleep(duration)
        except OverflowError as exc:
            return str(exc)
        return ""

    run = drive(sleeps)
    run.begin()
    assert "is longer than Derecho can count" in run.result


def test_a_duration_that_is_none_is_a_slip(drive: DriveOf) -> None:
    @workflow
    async def sleeps(ctx: Context) -> None:
        await ctx.sleep("5")  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="a duration is a timedelta or a number of seconds, not '5'"):
        drive(sleeps).begin()


def test_the_handle_of_a_timer_can_be_kept_in_a_set(drive: DriveOf) -> None:
    @workflow
    async def keeps(ctx: Context) -> bool:
        loop = asyncio.get_running_loop()
        one, other = loop.call_later(5, print), loop.call_later(5, print)
        return one in {one, other} and one != other

    run = drive(keeps)
    run.begin()
    assert run.result


def test_a_callback_runs_with_the_context_of_whoever_asked_for_it(drive: DriveOf) -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    @workflow
    async def calls(ctx: Context) -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()
        tenant.set("acme")
        loop.call_soon(lambda: seen.append(tenant.get()))
        loop.call_later(0, lambda: seen.append(tenant.get()))
        loop.call_later(60, lambda: seen.append(tenant.get()), context=Variables())
        loop.call_later(60, lambda: seen.append(tenant.get()))
        await ctx.wait_for(lambda: len(seen) == 4)
        return seen

    run = drive(calls)
    run.begin()
    run.task(run.fired(1), run.fired(2), after=60)
    assert run.result == ["acme", "acme", "nobody", "acme"]
