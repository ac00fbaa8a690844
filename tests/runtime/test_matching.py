"""Every recorded command must be asked for again, by kind and identity, in its own task."""

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from derecho import Context, NondeterminismError, activity, workflow
from tests.runtime.conftest import DriveOf
from tests.support.drive import Drive


@activity
async def charge(cents: int) -> str:
    return "receipt"


@activity
async def refund(receipt: str) -> None: ...


@activity
async def ship(receipt: str) -> None: ...


@workflow
async def order(ctx: Context) -> str:
    receipt = await charge.execute(ctx, 100)
    label = ctx.side_effect(lambda: "label")
    await ctx.sleep(60)
    await ship.execute(ctx, label)
    return receipt


def recorded(drive: DriveOf) -> Drive:
    run = drive(order)
    run.begin()
    run.task(run.completed("charge", "receipt"), after=1)
    run.task(run.fired(), after=60)
    run.task(run.completed("ship"), after=1)
    assert run.result == "receipt"
    return run


Code = Callable[[Context], Awaitable[Any]]


async def renamed(ctx: Context) -> None:
    await refund.execute(ctx, "x")


async def other_kind(ctx: Context) -> None:
    await ctx.sleep(5)


async def nothing_at_all(ctx: Context) -> None: ...


async def waits_for_ever(ctx: Context) -> None:
    await ctx.wait_for(lambda: False)


async def one_more_before(ctx: Context) -> None:
    await refund.execute(ctx, "x")
    await order(ctx)


async def one_more_beside(ctx: Context) -> None:
    refund.execute(ctx, "x")
    await order(ctx)


async def one_more_after(ctx: Context) -> None:
    await charge.execute(ctx, 100)
    ctx.side_effect(lambda: "label")
    ctx.new_timer(60)
    await refund.execute(ctx, "x")


async def one_less(ctx: Context) -> None:
    await charge.execute(ctx, 100)
    await ctx.sleep(60)


async def swapped(ctx: Context) -> None:
    await charge.execute(ctx, 100)
    timer = ctx.sleep(60)
    ctx.side_effect(lambda: "label")
    await timer


async def too_early(ctx: Context) -> None:
    receipt = charge.execute(ctx, 100)
    ctx.side_effect(lambda: "label")
    await receipt


async def other_order_of_magnitude(ctx: Context) -> None:
    await charge.execute(ctx, 100)
    ctx.side_effect(lambda: "label")
    await ctx.sleep(7_200)


async def ends_early(ctx: Context) -> str:
    await charge.execute(ctx, 100)
    return "done"


async def goes_on(ctx: Context) -> str:
    receipt = await order(ctx)
    await refund.execute(ctx, receipt)
    return receipt


async def fails_instead(ctx: Context) -> str:
    await order(ctx)
    raise ValueError("no")


EDITS: list[tuple[Code, int | None, str]] = [
    (renamed, 3, "'charge'.*'refund'"),
    (other_kind, 3, "activity_scheduled 'charge'.*timer_scheduled 'seconds'"),
    (nothing_at_all, 3, "'charge'.*workflow_completed"),
    (waits_for_ever, 3, "'charge'.*requested  nothing"),
    (one_more_before, 3, "'charge'.*'refund'"),
    (one_more_beside, 3, "'charge'.*'refund'"),
    (one_more_after, None, "nothing more in this task.*'refund'"),
    (one_less, 6, "side_effect_recorded.*timer_scheduled"),
    (swapped, 6, "side_effect_recorded.*timer_scheduled"),
    (too_early, None, "nothing more in this task.*side_effect_recorded"),
    (other_order_of_magnitude, 7, "timer_scheduled 'minutes'.*timer_scheduled 'hours'"),
    (ends_early, 6, "side_effect_recorded.*workflow_completed"),
    (goes_on, 13, "workflow_completed.*'refund'"),
    (fails_instead, 13, "workflow_completed.*workflow_failed"),
]


@pytest.mark.parametrize(("code", "event", "words"), EDITS, ids=[code.__name__ for code, *_ in EDITS])
def test_an_edit_is_caught_at_its_event(drive: DriveOf, code: Code, event: int | None, words: str) -> None:
    run = recorded(drive)
    with pytest.raises(NondeterminismError) as caught:
        run.replay(workflow("order")(code))
    message = str(caught.value)
    assert re.search(words, message, re.DOTALL), message
    assert event is None or f"event {event}" in message
    assert "workflow 'order-1'" in message


def test_the_message_names_both_source_lines_and_what_to_do(drive: DriveOf) -> None:
    run = recorded(drive)
    with pytest.raises(NondeterminismError) as caught:
        run.replay(workflow("order")(renamed))
    assert line_of(order.fn, "charge.execute") in str(caught.value)
    assert line_of(renamed, "refund.execute") in str(caught.value)
    assert "Keep the old name, or guard the change with ctx.patched" in str(caught.value)


def line_of(fn: Callable[..., Any], text: str) -> str:
    lines, first = inspect.getsourcelines(fn)
    number = next(n for n, line in enumerate(lines, first) if text in line)
    return f"runtime/test_matching.py:{number}"


async def retuned(ctx: Context) -> str:
    receipt = await charge.execute(ctx, 999)
    ctx.side_effect(lambda: "other label")
    await ctx.sleep(90)
    await ship.execute(ctx, "elsewhere")
    return receipt


async def with_a_helper(ctx: Context) -> str:
    async def part(ctx: Context) -> str:
        return await charge.execute(ctx, 100)

    receipt = await ctx.go(part)
    label = ctx.side_effect(lambda: "label")
    await ctx.sleep(60)
    await ship.execute(ctx, label)
    return receipt


@pytest.mark.parametrize("code", [order.fn, retuned, with_a_helper])
def test_edits_that_ask_for_the_same_things_are_no_mismatch(drive: DriveOf, code: Code) -> None:
    recorded(drive).replay(workflow("order")(code))


def test_code_cannot_swallow_the_mismatch(drive: DriveOf) -> None:
    @workflow("order")
    async def stubborn(ctx: Context) -> str:
        try:
            await refund.execute(ctx, "x")
        except Exception:
            return "went on"
        return "never"

    with pytest.raises(NondeterminismError):
        recorded(drive).replay(stubborn)


def test_not_even_code_that_catches_everything_can(drive: DriveOf) -> None:
    @workflow("order")
    async def deaf(ctx: Context) -> None:
        while True:
            try:
                await refund.execute(ctx, "x")
            except BaseException:
                continue  # for ever

    with pytest.raises(NondeterminismError):
        recorded(drive).replay(deaf)
