"""`ctx.wait_for` waits for a condition by being woken, never by asking around."""

import asyncio
from contextvars import ContextVar

from derecho import Context, Signal, activity, workflow
from tests.runtime.conftest import DriveOf
from tests.support.drive import names

add = Signal("add", int)


@activity
async def work(number: int) -> int:
    return number


def test_it_returns_at_once_when_the_condition_holds(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> bool:
        return await ctx.wait_for(lambda: True, timeout=60)

    run = drive(waits)
    assert names(run.begin()) == ["workflow_completed"]
    assert run.result is True


def test_it_returns_when_another_fiber_made_it_hold(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> list[int]:
        seen: list[int] = []

        async def collect(ctx: Context) -> None:
            async for number in ctx.signals(add):
                seen.append(number)

        ctx.go(collect)
        assert await ctx.wait_for(lambda: sum(seen) >= 5)
        return seen

    run = drive(waits)
    run.begin()
    run.task(run.signal(add, 2))
    assert not run.is_over
    run.task(run.signal(add, 3), run.signal(add, 4))
    assert run.result == [2, 3, 4]
    run.check()


def test_the_timeout_gives_false_and_a_success_drops_its_timer(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> list[bool]:
        box: list[int] = []

        async def fill(ctx: Context) -> None:
            box.append(await work.execute(ctx, 1))

        late = await ctx.wait_for(lambda: bool(box), timeout=60)
        ctx.go(fill)
        return [late, await ctx.wait_for(lambda: bool(box), timeout=60)]

    run = drive(waits)
    assert names(run.begin()) == ["timer 60"]
    assert names(run.task(run.fired(), after=60)) == ["timer 60", "work"]
    assert names(run.task(run.completed("work", 1))) == ["timer_cancelled", "workflow_completed"]
    assert run.result == [False, True]
    run.check()


def test_a_condition_that_holds_when_the_timeout_comes_counts(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> bool:
        done = work.execute(ctx, 1)
        return await ctx.wait_for(done.done, timeout=60)

    run = drive(waits)
    run.begin()
    run.task(run.fired(), run.completed("work", 1), after=60)
    assert run.result is True
    run.check()


def test_an_error_in_the_condition_is_raised_where_it_is_awaited(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> str:
        box: dict[str, bool] = {"ready": False}

        async def spoil(ctx: Context) -> None:
            await ctx.sleep(1)
            del box["ready"]

        ctx.go(spoil)
        try:
            await ctx.wait_for(lambda: box["ready"], timeout=60)
        except KeyError:
            return "caught"
        return "not"

    run = drive(waits)
    run.begin()
    run.task(run.fired(2), after=1)
    assert run.result == "caught"


def test_several_conditions_come_true_in_the_order_of_their_waiting(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> list[str]:
        order: list[str] = []
        level = 0

        async def wait(ctx: Context, name: str, least: int) -> None:
            await ctx.wait_for(lambda: level >= least)
            order.append(name)

        fibers = [ctx.go(wait, f"{name}{least}", least) for name in "ab" for least in (2, 1)]
        async for number in ctx.signals(add):
            level = number
            if number == 2:
                break
        await asyncio.gather(*fibers)
        return order

    run = drive(waits)
    run.begin()
    run.task(run.signal(add, 1))
    run.task(run.signal(add, 2))
    assert run.result == ["a1", "b1", "a2", "b2"]
    run.check()


def test_conditions_are_looked_at_a_linear_number_of_times(drive: DriveOf) -> None:
    looks = 0

    @workflow
    async def waits(ctx: Context) -> int:
        total = 0

        def enough() -> bool:
            nonlocal looks
            looks += 1
            return total >= 200

        async def add_up(ctx: Context) -> None:
            nonlocal total
            for _ in range(200):
                total += await work.execute(ctx, 1)

        ctx.go(add_up)
        await ctx.wait_for(enough)
        return total

    run = drive(waits)
    run.begin()
    for nth in range(1, 201):
        run.task(run.completed("work", 1, nth))
    assert run.result == 200
    assert looks <= 202


def test_a_cancelled_wait_is_forgotten(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> str:
        looked: list[int] = []

        def never() -> bool:
            looked.append(1)
            return False

        try:
            await asyncio.wait_for(ctx.wait_for(never), 60)
        except TimeoutError:
            before = len(looked)
            await work.execute(ctx, 1)
            return f"{len(looked) - before}"
        return ""

    run = drive(waits)
    run.begin()
    run.task(run.fired(), after=60)
    run.task(run.completed("work", 1))
    assert run.result == "0"


tenant: ContextVar[str] = ContextVar("tenant")


def test_a_condition_is_asked_with_the_context_of_whoever_waits(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> bool:
        tenant.set("acme")
        seen: list[int] = []

        async def collect(ctx: Context) -> None:
            seen.append(await ctx.signals(add).receive())

        ctx.go(collect)
        return await ctx.wait_for(lambda: bool(seen) and tenant.get() == "acme")

    run = drive(waits)
    run.begin()
    tenant.set("of the thread that drives the run")
    run.task(run.signal(add, 1))
    assert run.result is True
    run.check()


def test_a_condition_that_ran_out_gives_a_bool_whatever_the_predicate_gave(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> bool:
        nothing: list[int] = []
        return await ctx.wait_for(lambda: nothing, timeout=60)  # type: ignore[arg-type,return-value]  # as people write it

    run = drive(waits)
    run.begin()
    run.task(run.fired(), after=60)
    assert run.result is False
