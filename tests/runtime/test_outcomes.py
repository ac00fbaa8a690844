"""What the author raises fails the run; what can only be a slip of the code blocks it until fixed code goes on."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from derecho import ActivityFailed, Context, DerechoError, DeterminismError, PayloadError, activity, workflow
from derecho.journal import events as ev
from tests.runtime.conftest import DriveOf


class OutOfStock(Exception): ...


class Strange(BaseException): ...


@activity
async def work(number: int) -> int:
    return number


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise type(error)(*error.args)

    return fail


def bad_call() -> Any:
    work.bind()  # type: ignore[call-arg]  # on purpose


def not_callable() -> Any:
    OUTCOMES()  # type: ignore[operator]  # on purpose


def bad_attribute() -> Any:
    work.nmae  # type: ignore[attr-defined]  # noqa: B018  (on purpose)


def bad_name() -> Any:
    nmae  # type: ignore[name-defined]  # noqa: B018, F821  (on purpose)


def bad_recursion() -> Any:
    return bad_recursion()


OUTCOMES = [OutOfStock("kite"), ValueError("x"), KeyError("k"), ZeroDivisionError(), TypeError("unsupported operand")]
SLIPS: list[tuple[Callable[[], Any], type[Exception]]] = [
    (raising(AssertionError("no")), AssertionError),
    (raising(NotImplementedError()), NotImplementedError),
    (raising(ImportError("x")), ImportError),
    (raising(SyntaxError("x")), SyntaxError),
    (raising(DeterminismError("x")), DeterminismError),
    (bad_call, TypeError),
    (not_callable, TypeError),
    (bad_attribute, AttributeError),
    (bad_name, NameError),
    (bad_recursion, RecursionError),
]


def calls(fail: Callable[[], Any], **options: Any) -> Any:
    @workflow("fails", **options)
    async def fails(ctx: Context) -> None:
        fail()

    return fails


@pytest.mark.parametrize("error", OUTCOMES, ids=repr)
def test_an_error_of_the_author_fails_the_run(drive: DriveOf, error: Exception) -> None:
    run = drive(calls(raising(error)))
    run.begin()
    assert run.failure == (type(error).__name__, str(error))
    run.check()


@pytest.mark.parametrize(("fail", "kind"), SLIPS, ids=[kind.__name__ for _, kind in SLIPS])
def test_a_slip_of_the_code_does_not(drive: DriveOf, fail: Callable[[], Any], kind: type[Exception]) -> None:
    run = drive(calls(fail))
    with pytest.raises(kind):
        run.begin()
    assert not run.is_over


@pytest.mark.parametrize("group", [ExceptionGroup("g", [ValueError()]), ExceptionGroup("g", [OutOfStock("a")])])
def test_a_group_of_errors_fails_the_run(drive: DriveOf, group: Exception) -> None:
    run = drive(calls(raising(group)))
    run.begin()
    assert run.failure[0] == "ExceptionGroup"


def test_a_slip_in_a_task_group_blocks_too(drive: DriveOf) -> None:
    @workflow
    async def in_a_group(ctx: Context) -> None:
        async def slip() -> None:
            bad_name()

        async with asyncio.TaskGroup() as group:
            group.create_task(slip())

    with pytest.raises(ExceptionGroup):
        drive(in_a_group).begin()


def test_the_lists_are_options_of_the_workflow(drive: DriveOf) -> None:
    fails = drive(calls(bad_name, fail_on=(NameError,)))
    fails.begin()
    assert fails.failure[0] == "NameError"
    with pytest.raises(OutOfStock):
        drive(calls(raising(OutOfStock("a")), block_on=(OutOfStock,))).begin()


@pytest.mark.parametrize("error", [NameError("n"), AssertionError("a"), AttributeError("b"), OutOfStock("c")], ids=repr)
def test_an_activity_that_raised_a_slip_fails_the_run_because_it_is_an_outcome(
    drive: DriveOf, error: Exception
) -> None:
    @workflow
    async def awaits(ctx: Context) -> int:
        return await work.execute(ctx, 1)

    run = drive(awaits)
    run.begin()
    run.task(run.failed("work", error))
    assert run.failure == (type(error).__name__, str(error))
    run.check()


def test_so_it_is_from_inside_a_group(drive: DriveOf) -> None:
    @workflow
    async def awaits(ctx: Context) -> None:
        async def one() -> None:
            await work.execute(ctx, 1)

        async with asyncio.TaskGroup() as group:
            group.create_task(one())

    run = drive(awaits)
    run.begin()
    run.task(run.failed("work", NameError("n")))
    assert run.failure[0] == "ExceptionGroup"


def test_the_workflow_sees_the_authors_own_class_caused_by_activity_failed(drive: DriveOf) -> None:
    @workflow
    async def awaits(ctx: Context) -> str:
        try:
            await work.execute(ctx, 1)
        except OutOfStock as exc:
            cause = exc.__cause__
            return f"{exc.args} {cause.activity} {cause.attempts}" if isinstance(cause, ActivityFailed) else "no cause"
        return "fine"

    run = drive(awaits)
    run.begin()
    run.task(run.failed("work", OutOfStock("kite", 3)))
    assert run.result == "('kite', 3) work 1"
    run.check()


def test_a_result_that_does_not_fit_its_annotation_blocks(drive: DriveOf) -> None:
    @workflow
    async def wrong(ctx: Context) -> int:
        return "one"  # type: ignore[return-value]  # on purpose

    with pytest.raises(PayloadError, match=r"the result of workflow 'wrong' .* Expected `int`, got `str`"):
        drive(wrong).begin()


def test_an_activitys_result_that_does_not_fit_todays_type_blocks(drive: DriveOf) -> None:
    @workflow
    async def awaits(ctx: Context) -> int:
        return await work.execute(ctx, 1)

    run = drive(awaits)
    run.begin()
    with pytest.raises(PayloadError, match="the result of activity 'work' cannot be decoded as int"):
        run.task(run.completed("work", "text"))


def test_an_argument_of_an_activity_that_does_not_fit_blocks_at_its_line(drive: DriveOf) -> None:
    @workflow
    async def passes(ctx: Context) -> int:
        return await work.execute(ctx, "one")  # type: ignore[arg-type]  # on purpose

    with pytest.raises(PayloadError, match="argument `number` of activity 'work'"):
        drive(passes).begin()


@pytest.mark.parametrize("error", [Strange("x"), GeneratorExit(), SystemExit(3)], ids=repr)
def test_an_error_that_is_no_exception_blocks(drive: DriveOf, error: BaseException) -> None:
    with pytest.raises(DerechoError, match="which is no Exception"):
        drive(calls(raising(error))).begin()


def test_code_that_cancels_itself_fails(drive: DriveOf) -> None:
    run = drive(calls(raising(asyncio.CancelledError())))
    run.begin()
    assert isinstance(run.outcome, ev.WorkflowFailed)
    assert "nobody had asked for it" in run.failure[1]


def test_the_terminal_event_is_the_last_one(drive: DriveOf) -> None:
    @workflow
    async def asks_and_ends(ctx: Context) -> None:
        work.execute(ctx, 1)
        ctx.new_timer(60)

    run = drive(asks_and_ends)
    assert isinstance(run.begin()[-1], ev.WorkflowCompleted)


async def caught(ctx: Context) -> None:
    async def one() -> None:
        await work.execute(ctx, 1)

    try:
        await asyncio.create_task(one())
    except ValueError:
        await ctx.sleep(60)


@pytest.mark.parametrize("together", [False, True])
def test_an_error_that_a_fiber_is_about_to_handle_does_not_fail_the_run(drive: DriveOf, together: bool) -> None:
    @workflow
    async def goes_on(ctx: Context) -> str:
        ctx.go(caught)
        await ctx.sleep(60)
        return "done"

    run = drive(goes_on)
    run.begin()
    failed = run.failed("work", ValueError("no"))
    if together:
        run.task(failed, run.fired(), after=60)
    else:
        run.task(failed, after=1)
        run.task(run.fired(), after=59)
    assert run.result == "done"
    run.check()


def test_an_error_that_was_waited_for_and_not_looked_at_fails_the_run(drive: DriveOf) -> None:
    @workflow
    async def looks_away(ctx: Context) -> str:
        async def one() -> None:
            await work.execute(ctx, 1)

        await asyncio.wait([asyncio.create_task(one())])
        return "done"

    run = drive(looks_away)
    run.begin()
    run.task(run.failed("work", ValueError("no")))
    assert isinstance(run.outcome, ev.WorkflowFailed)
