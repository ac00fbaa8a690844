"""Fibers: errors nobody awaited are not lost, what outlives the main function is discarded."""

import asyncio
import contextvars

import pytest

from derecho import Context, activity, workflow
from tests.runtime.conftest import DriveOf
from tests.support.drive import names


@activity
async def work(name: str) -> str:
    return name


class Broken(Exception): ...


async def breaks(ctx: Context, text: str = "no") -> None:
    raise Broken(text)


async def breaks_later(ctx: Context) -> None:
    await work.execute(ctx, "first")
    raise Broken("later")


def test_an_error_that_nobody_awaited_fails_the_run_when_it_returns(drive: DriveOf) -> None:
    @workflow
    async def careless(ctx: Context) -> str:
        ctx.go(breaks)
        await ctx.sleep(60)
        return "done"

    run = drive(careless)
    run.begin()
    assert not run.is_over
    run.task(run.fired(), after=60)
    assert run.failure == ("Broken", "no")
    run.check()


def test_the_first_of_several_lost_errors_is_the_one(drive: DriveOf) -> None:
    @workflow
    async def careless(ctx: Context) -> None:
        for number in range(3):
            ctx.go(breaks, str(number))
        await ctx.sleep(1)

    run = drive(careless)
    run.begin()
    run.task(run.fired())
    assert run.failure == ("Broken", "0")


def test_it_is_not_lost_when_hundreds_of_fibers_end_well(drive: DriveOf) -> None:
    @workflow
    async def busy(ctx: Context) -> None:
        async def fine(ctx: Context) -> None: ...

        ctx.go(breaks)
        for _ in range(500):
            await ctx.go(fine)

    run = drive(busy)
    run.begin()
    assert run.failure == ("Broken", "no")


@pytest.mark.parametrize("how", ["await", "gather", "exception()", "wait"])
def test_an_error_that_was_looked_at_is_the_authors_affair(drive: DriveOf, how: str) -> None:
    @workflow
    async def careful(ctx: Context) -> str:
        fiber = ctx.go(breaks)
        match how:
            case "await":
                with pytest.raises(Broken):
                    await fiber
            case "gather":
                await asyncio.gather(fiber, return_exceptions=True)
            case "exception()":
                await asyncio.sleep(0)
                assert isinstance(fiber.exception(), Broken)
            case _:
                [done], _ = await asyncio.wait([fiber])
                assert isinstance(done.exception(), Broken)
        return "done"

    run = drive(careful)
    run.begin()
    assert run.result == "done"


def test_a_failed_activity_that_nobody_awaited_fails_nothing(drive: DriveOf) -> None:
    @workflow
    async def forgetful(ctx: Context) -> str:
        work.execute(ctx, "a")
        await ctx.sleep(60)
        return "done"

    run = drive(forgetful)
    run.begin()
    run.task(run.failed("work", Broken("x")), run.fired(), after=60)
    assert run.result == "done"


def test_the_errors_own_error_wins_over_a_lost_one(drive: DriveOf) -> None:
    @workflow
    async def both(ctx: Context) -> None:
        ctx.go(breaks)
        await ctx.sleep(1)
        raise ValueError("mine")

    run = drive(both)
    run.begin()
    run.task(run.fired())
    assert run.failure == ("ValueError", "mine")


def test_what_other_fibers_want_after_the_end_is_discarded(drive: DriveOf) -> None:
    @workflow
    async def leaves(ctx: Context) -> str:
        async def goes_on(ctx: Context) -> None:
            for number in range(5):
                await work.execute(ctx, str(number))

        ctx.go(goes_on)
        await ctx.sleep(60)
        return "done"

    run = drive(leaves)
    assert names(run.begin()) == ["timer 60", "work"]
    assert names(run.task(run.fired(), run.completed("work", "0"), after=60)) == ["workflow_completed"]
    run.check()


def test_a_fiber_that_was_cancelled_fails_nothing(drive: DriveOf) -> None:
    @workflow
    async def cancels(ctx: Context) -> str:
        fiber = ctx.go(breaks_later)
        await asyncio.sleep(0)
        fiber.cancel()
        await asyncio.sleep(0)
        return "done"

    run = drive(cancels)
    assert names(run.begin()) == ["work", "activity_cancel_requested", "workflow_completed"]


def test_fibers_see_the_context_variables_of_their_maker_and_no_others(drive: DriveOf) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="none")
    tenant.set("of the test")

    @workflow
    async def looks(ctx: Context) -> list[str]:
        async def look(ctx: Context) -> str:
            found = tenant.get()
            tenant.set("of the fiber")
            return found

        outside = tenant.get()
        tenant.set("acme")
        return [outside, await ctx.go(look), tenant.get()]

    run = drive(looks)
    run.begin()
    assert run.result == ["none", "acme", "acme"]
    assert tenant.get() == "of the test"
