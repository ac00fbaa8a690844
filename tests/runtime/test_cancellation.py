"""A request to cancel is delivered once, as asyncio cancels a task; what the code does then still counts."""

import asyncio
from typing import Any

import pytest

from derecho import ActivityCancelled, Context, Signal, activity, workflow
from derecho.journal import events as ev
from tests.runtime.conftest import DriveOf
from tests.support.drive import names

go = Signal("go", int)


@activity
async def book(what: str) -> str:
    return what


@activity
async def undo(what: str) -> None: ...


@workflow
async def undoes(ctx: Context) -> str:
    try:
        await book.execute(ctx, "flight")
        return "booked"
    finally:
        await undo.execute(ctx, "flight")


def test_clean_up_after_a_cancel_runs_to_its_end(drive: DriveOf) -> None:
    run = drive(undoes)
    run.begin()
    assert names(run.task(run.cancel("changed my mind"))) == ["activity_cancel_requested", "undo"]
    assert not run.is_over
    run.task(run.completed("undo"))
    assert run.outcome == ev.WorkflowCancelled("changed my mind")
    run.check()


def test_it_is_delivered_once_however_often_it_is_asked_for(drive: DriveOf) -> None:
    run = drive(undoes)
    run.begin()
    run.task(run.cancel("first"), run.cancel("second"))
    assert names(run.task(run.cancel("third"))) == []
    run.task(run.completed("undo"))
    assert run.outcome == ev.WorkflowCancelled("first")
    run.check()


def test_a_cancel_that_came_before_the_first_task_ends_the_run_before_its_code_begins(drive: DriveOf) -> None:
    run = drive(undoes)
    assert run.begin(run.cancel()) == [ev.WorkflowCancelled("no longer wanted")]
    run.check()


def test_code_may_refuse(drive: DriveOf) -> None:
    @workflow
    async def stubborn(ctx: Context) -> str:
        try:
            await ctx.sleep(60)
        except asyncio.CancelledError:
            await ctx.sleep(30)
        return "finished all the same"

    run = drive(stubborn)
    run.begin()
    assert names(run.task(run.cancel())) == ["timer_cancelled", "timer 30"]
    run.task(run.fired(2), after=30)
    assert run.result == "finished all the same"
    run.check()


def test_an_error_during_clean_up_is_the_outcome(drive: DriveOf) -> None:
    @workflow
    async def fails(ctx: Context) -> None:
        try:
            await ctx.sleep(60)
        finally:
            raise ValueError("could not tidy up")

    run = drive(fails)
    run.begin()
    run.task(run.cancel())
    assert run.failure == ("ValueError", "could not tidy up")


def test_it_reaches_the_fibers_that_the_main_function_awaits(drive: DriveOf) -> None:
    @workflow
    async def parallel(ctx: Context) -> None:
        async def one(name: str) -> None:
            try:
                await book.execute(ctx, name)
            finally:
                await undo.execute(ctx, name)

        async with asyncio.TaskGroup() as group:
            for name in ("flight", "hotel", "car"):
                group.create_task(one(name))

    run = drive(parallel)
    run.begin()
    asked = run.task(run.cancel())
    assert names(asked) == ["activity_cancel_requested"] * 3 + ["undo"] * 3
    assert [command.input[0].raw() for command in asked if isinstance(command, ev.ActivityScheduled)] == [
        b'"flight"',
        b'"hotel"',
        b'"car"',
    ]
    run.task(*(run.completed("undo", nth=nth) for nth in (1, 2, 3)))
    assert isinstance(run.outcome, ev.WorkflowCancelled)
    run.check()


@pytest.mark.parametrize(
    ("on_cancel", "asked", "left"), [("request", 1, "gone"), ("abandon", 0, "gone"), ("wait", 1, "waits")]
)
def test_on_cancel_says_what_becomes_of_an_activity(drive: DriveOf, on_cancel: Any, asked: int, left: str) -> None:
    @workflow
    async def cancels(ctx: Context) -> str:
        future = ctx.execute(book.bind("flight"), on_cancel=on_cancel)
        await ctx.signals(go).receive()
        future.cancel()
        try:
            return await future
        except asyncio.CancelledError:
            return "cancelled"

    run = drive(cancels)
    run.begin()
    commands = names(run.task(run.signal(go, 1)))
    assert commands.count("activity_cancel_requested") == asked
    assert (run.outcome is None) == (left == "waits")
    if left == "waits":
        run.task(run.ended_cancelled("book"))
    assert run.result == "cancelled"
    run.check()


def test_a_result_that_came_after_the_cancel_changes_nothing(drive: DriveOf) -> None:
    @workflow
    async def cancels(ctx: Context) -> str:
        future = book.execute(ctx, "flight")
        await ctx.signals(go).receive()
        future.cancel()
        await ctx.sleep(60)
        return "cancelled" if future.cancelled() else await future

    for late in ("completed", "ended_cancelled"):
        run = drive(cancels)
        run.begin()
        run.task(run.signal(go, 1))
        run.task(getattr(run, late)("book"))
        run.task(run.fired(), after=60)
        assert run.result == "cancelled"
        run.check()


def test_an_activity_that_ended_cancelled_by_itself_raises_that(drive: DriveOf) -> None:
    @workflow
    async def awaits(ctx: Context) -> str:
        try:
            return await book.execute(ctx, "flight")
        except ActivityCancelled as exc:
            return f"{exc.activity}: {exc}"

    run = drive(awaits)
    run.begin()
    run.task(run.ended_cancelled("book"))
    assert run.result.startswith("book: activity 'book' failed")


def test_a_shield_holds_it_back_until_it_is_lowered(drive: DriveOf) -> None:
    @workflow
    async def shielded(ctx: Context) -> list[str]:
        seen: list[str] = []
        async with ctx.shield():
            seen.append(await book.execute(ctx, "flight"))
        try:
            await ctx.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
        return seen

    run = drive(shielded)
    run.begin()
    assert names(run.task(run.cancel())) == []
    run.task(run.completed("book", "flight"))
    assert run.result == ["flight", "cancelled"]
    run.check()


def test_the_code_can_watch_for_it_without_being_stopped(drive: DriveOf) -> None:
    @workflow
    async def watches(ctx: Context) -> str:
        request, seen = ctx.cancelled(), list[str]()
        async with ctx.shield():
            seen.append((await request).reason)
            await undo.execute(ctx, seen[0])
        return seen[0]

    run = drive(watches)
    run.begin()
    assert names(run.task(run.cancel("enough"))) == ["undo"]
    run.task(run.completed("undo"))
    assert run.outcome == ev.WorkflowCancelled("enough")
    run.check()


def test_a_run_cancelled_and_finished_in_one_task_has_one_outcome(drive: DriveOf) -> None:
    @workflow
    async def awaits(ctx: Context) -> str:
        return await book.execute(ctx, "flight")

    for first in ("cancel", "completed"):
        run = drive(awaits)
        run.begin()
        facts: list[ev.Fact] = [run.cancel(), run.completed("book", "flight")]
        run.task(*(facts if first == "cancel" else reversed(facts)))
        assert run.is_over
        run.check()
