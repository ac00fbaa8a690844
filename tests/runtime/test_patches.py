"""`ctx.patched` lets code change under runs that are under way, and can be deleted afterwards."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from derecho import Context, NondeterminismError, activity, workflow
from tests.runtime.conftest import DriveOf
from tests.support.drive import Drive, names


@activity
async def one() -> None: ...


@activity
async def two() -> None: ...


Code = Callable[[Context], Awaitable[Any]]


async def original(ctx: Context) -> None:
    await one.execute(ctx)
    await one.execute(ctx)


async def guarded(ctx: Context) -> None:
    await one.execute(ctx)
    await (two if ctx.patched("use two") else one).execute(ctx)


async def settled(ctx: Context) -> None:
    await one.execute(ctx)
    await two.execute(ctx)


async def guarded_twice(ctx: Context) -> None:
    await one.execute(ctx)
    if ctx.patched("use two") and ctx.patched("use two in earnest"):
        await two.execute(ctx)
    else:
        await one.execute(ctx)


async def settled_once(ctx: Context) -> None:
    await one.execute(ctx)
    await (two if ctx.patched("use two in earnest") else one).execute(ctx)


def recorded(drive: DriveOf, code: Code, upto: int = 3) -> Drive:
    run = drive(workflow("order")(code))
    run.begin()
    if upto > 1:
        run.task(run.completed("one"))
    if upto > 2:
        run.task(run.completed("two") if "two" in names(run.events[-1:]) else run.completed("one", nth=2))  # type: ignore[arg-type]  # the last event is a command
        assert run.is_over
    return run


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (original, guarded),
        (guarded, guarded),
        (guarded, settled),
        (original, guarded_twice),
        (guarded_twice, guarded_twice),
        (guarded_twice, settled),
        (guarded_twice, settled_once),
    ],
)
def test_a_run_of_the_old_code_goes_through_the_new(drive: DriveOf, old: Code, new: Code) -> None:
    for upto in (1, 2, 3):
        recorded(drive, old, upto).replay(workflow("order")(new))


@pytest.mark.parametrize(("old", "new"), [(original, settled), (settled, original), (guarded, original)])
def test_an_edit_without_a_guard_does_not(drive: DriveOf, old: Code, new: Code) -> None:
    with pytest.raises(NondeterminismError):
        recorded(drive, old).replay(workflow("order")(new))


def test_a_new_run_takes_the_new_way_and_marks_it_once(drive: DriveOf) -> None:
    @workflow
    async def asks_often(ctx: Context) -> list[bool]:
        return [ctx.patched("a"), ctx.patched("a"), ctx.patched("b"), ctx.patched("a")]

    run = drive(asks_often)
    assert names(run.begin()) == ["patch_marked", "patch_marked", "workflow_completed"]
    assert run.result == [True] * 4
    run.check()


def test_the_answer_stays_the_same_for_the_whole_run(drive: DriveOf) -> None:
    @workflow("order")
    async def asks_at_every_turn(ctx: Context) -> list[bool]:
        asked = [ctx.patched("v2")]
        await one.execute(ctx)
        asked.append(ctx.patched("v2"))
        await one.execute(ctx)
        return [*asked, ctx.patched("v2"), ctx.patched("v3")]

    run = drive(asks_at_every_turn)
    run.take_over(recorded(drive, original, upto=1))
    run.task(run.completed("one"))
    run.task(run.completed("one", nth=2))
    assert run.result == [False, False, False, True]


def test_code_taken_over_in_the_middle_keeps_to_the_old_way_where_history_went_past(drive: DriveOf) -> None:
    run = recorded(drive, original, upto=1)
    cold = drive(workflow("order")(guarded))
    cold.take_over(run)
    assert names(cold.task(cold.completed("one"))) == ["patch_marked", "two"]
    run = recorded(drive, original, upto=2)
    cold = drive(workflow("order")(guarded))
    cold.take_over(run)
    assert names(cold.task(cold.completed("one", nth=2))) == ["workflow_completed"]


def test_patches_that_newer_code_asks_for_in_another_order_keep_their_answers(drive: DriveOf) -> None:
    def asks(*changes: str) -> Code:
        async def code(ctx: Context) -> list[bool]:
            answers = {change: ctx.patched(change) for change in changes}
            await one.execute(ctx)
            return [answers["a"], answers["b"]]

        return code

    old, new = (workflow("order")(asks(*changes)) for changes in ("ab", "ba"))
    run = drive(old)
    run.begin()
    other = drive(new)
    other.take_over(run)
    other.task(other.completed("one"))
    assert other.result == [True, True]
