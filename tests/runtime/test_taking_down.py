"""Taking a run out of memory is not its end: nothing that its clean-up code asks for counts."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from derecho import Context, Signal, activity, workflow
from derecho.runtime.loop import ControlSignal
from tests.runtime.conftest import DriveOf
from tests.support.drive import Drive

number = Signal("number", int)


@activity
async def work(name: str) -> str:
    return name


@activity
async def undo(name: str) -> None: ...


done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


def taken_down(run: Drive) -> list[str]:
    """Close a run that waits; what its code asked for meanwhile must not be there."""
    before = len(run.execution.commands), run.outcome
    stuck = run.close()
    gc.collect()
    assert (len(run.execution.commands), run.outcome) == before
    return stuck


async def finally_undo(ctx: Context) -> None:
    try:
        await work.execute(ctx, "a")
    finally:
        done.append("tidying")
        await undo.execute(ctx, "a")
        done.append("tidied")


async def except_undo(ctx: Context) -> None:
    try:
        await work.execute(ctx, "a")
    except BaseException:
        await undo.execute(ctx, "a")
        done.append("tidied")
        raise


async def cancelled_undo(ctx: Context) -> None:
    try:
        await ctx.sleep(60)
    except asyncio.CancelledError:
        done.append("thought it was cancelled")
        raise


async def except_exception(ctx: Context) -> None:
    try:
        await work.execute(ctx, "a")
    except Exception:
        done.append("thought it had failed")


async def async_context(ctx: Context) -> None:
    @contextlib.asynccontextmanager
    async def booked() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await undo.execute(ctx, "a")
            done.append("tidied")

    async with booked():
        await work.execute(ctx, "a")


async def generator_within(ctx: Context) -> None:
    async def parts() -> AsyncIterator[str]:
        try:
            yield await work.execute(ctx, "a")
        finally:
            await undo.execute(ctx, "a")
            done.append("tidied")

    async for _ in parts():
        pass


async def generator_beside(ctx: Context) -> None:
    """A generator that hangs between two items while the fiber waits for something else."""

    async def parts() -> AsyncIterator[str]:
        try:
            yield "one"
            yield "two"
        finally:
            await undo.execute(ctx, "a")
            done.append("tidied")

    hanging = parts()
    await anext(hanging)
    await work.execute(ctx, "a")
    await anext(hanging)


async def task_group(ctx: Context) -> None:
    async def one(name: str) -> None:
        try:
            await work.execute(ctx, name)
        finally:
            await undo.execute(ctx, name)
            done.append("tidied")

    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(one(name))


async def with_timeout(ctx: Context) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(work.execute(ctx, "a"), ctx.go(finally_undo))
    done.append("went on")


async def cancels_others(ctx: Context) -> None:
    fiber, timer = ctx.go(finally_undo), ctx.new_timer(60)
    try:
        await ctx.signals(number).receive()
    finally:
        fiber.cancel()
        timer.cancel()


async def not_begun(ctx: Context) -> None:
    ctx.go(finally_undo)
    await ctx.signals(number).receive()


async def drawing(ctx: Context) -> None:
    try:
        await ctx.sleep(60)
    finally:
        ctx.side_effect(lambda: done.append("drew"))
        ctx.new_timer(1)
        ctx.patched("x")
        done.append("tidied")


WAYS = [
    finally_undo,
    except_undo,
    cancelled_undo,
    except_exception,
    async_context,
    generator_within,
    generator_beside,
    task_group,
    with_timeout,
    cancels_others,
    not_begun,
    drawing,
]


@pytest.mark.parametrize("code", WAYS, ids=[code.__name__ for code in WAYS])
def test_clean_up_code_does_not_get_to_act(drive: DriveOf, code: Callable[..., Any]) -> None:
    run = drive(workflow("order")(code))
    run.begin()
    assert taken_down(run) == []
    assert [what for what in done if what != "tidying"] == []


@pytest.mark.parametrize("code", WAYS, ids=[code.__name__ for code in WAYS])
def test_the_run_goes_on_elsewhere_as_if_nothing_had_been(drive: DriveOf, code: Callable[..., Any]) -> None:
    run = drive(workflow("order")(code))
    run.begin()
    taken_down(run)
    other = drive(workflow("order")(code))
    other.take_over(run)
    assert not other.is_over


async def deaf_for_a_while(ctx: Context) -> None:
    for _ in range(3):
        with contextlib.suppress(BaseException):
            await ctx.sleep(60)


def test_code_that_catches_everything_for_a_while_comes_down(drive: DriveOf) -> None:
    run = drive(workflow("order")(deaf_for_a_while))
    run.begin()
    assert taken_down(run) == []


async def asks(ctx: Context) -> None:
    await work.execute(ctx, "a")


async def sleeps(ctx: Context) -> None:
    await asyncio.sleep(60)


async def yields(ctx: Context) -> None:
    await ctx.sleep(0)


async def receives(ctx: Context) -> None:
    await ctx.signals(number).receive()


async def waits(ctx: Context) -> None:
    await ctx.wait_for(lambda: False)


@pytest.mark.parametrize("ask", [asks, sleeps, yields, receives, waits], ids=lambda ask: str(ask.__name__))
def test_code_that_catches_everything_for_ever_is_left_alone_and_reported_by_its_line(
    drive: DriveOf, caplog: pytest.LogCaptureFixture, ask: Callable[[Context], Any]
) -> None:
    @workflow
    async def deaf(ctx: Context) -> None:
        while True:
            with contextlib.suppress(BaseException):
                await work.execute(ctx, "a")
                while True:
                    with contextlib.suppress(BaseException):
                        await ask(ctx)

    run = drive(deaf)
    run.begin()
    stuck = taken_down(run)
    assert "test_taking_down.py:" in stuck[0]
    assert f"refused to be taken down at {stuck[0]}" in caplog.text


def test_the_logger_is_silent_meanwhile(drive: DriveOf, caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def chatty(ctx: Context) -> None:
        try:
            await ctx.sleep(60)
        finally:
            ctx.log.warning("the order is over")

    run = drive(chatty)
    run.begin()
    taken_down(run)
    assert caplog.text == ""


def test_it_happens_on_the_thread_that_asks_and_at_once(drive: DriveOf) -> None:
    threads: list[threading.Thread] = []

    @workflow
    async def waits(ctx: Context) -> None:
        try:
            await ctx.sleep(60)
        finally:
            threads.append(threading.current_thread())

    run = drive(waits)
    run.begin()
    run.close()
    assert threads == [threading.current_thread()]


def test_inner_fibers_go_first_so_that_their_callers_see_them_gone(drive: DriveOf) -> None:
    order: list[str] = []

    @workflow
    async def nested(ctx: Context) -> None:
        async def inner(ctx: Context, name: str) -> None:
            try:
                await ctx.sleep(60)
            except ControlSignal:
                order.append(name)
                raise

        try:
            await asyncio.gather(ctx.go(inner, "first"), ctx.go(inner, "second"))
        finally:
            order.append("main")

    run = drive(nested)
    run.begin()
    run.close()
    assert order == ["second", "first", "main"]


def test_a_finished_run_leaves_nothing_to_take_down(drive: DriveOf) -> None:
    @workflow
    async def leaves_fibers(ctx: Context) -> str:
        ctx.go(finally_undo)
        await asyncio.sleep(0)
        return "done"

    run = drive(leaves_fibers)
    run.begin()
    assert taken_down(run) == []
    assert done == ["tidying"]
    assert run.result == "done"


def test_closing_twice_is_harmless(drive: DriveOf) -> None:
    run = drive(workflow("order")(finally_undo))
    run.begin()
    assert (run.close(), run.close()) == ([], [])
