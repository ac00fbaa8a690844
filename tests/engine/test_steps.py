"""Steps: small closures whose result is recorded once, whatever happens to the worker around them."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

import derecho
from derecho import (
    ActivityFailed,
    ActivityTimeout,
    Context,
    NonRetryable,
    RetryAfter,
    RetryPolicy,
    Store,
    WorkflowFailed,
    workflow,
)
from derecho.testing.faults import abandon
from tests.support.clocks import StandingClock
from tests.support.world import FOR_EVER, engine_of, eventually

AT_ONCE = RetryPolicy(initial_interval=0)


@dataclass
class Quote:
    id: UUID
    at: datetime
    lines: list[tuple[str, int]]


QUOTE = Quote(UUID(int=7), datetime(2024, 1, 1, tzinfo=UTC), [("a", 1)])


async def a_quote() -> Quote:
    return QUOTE


async def run(store: Store, code: Any, *definitions: Any) -> Any:
    defined = workflow("w")(code)
    async with engine_of(store, defined, *definitions) as engine:
        handle = await engine.client.start(defined.bind())
        try:
            return await handle.result(timeout=20)
        finally:
            derecho.replay(defined, await handle.history())


async def test_the_result_has_its_type(store: Store) -> None:
    async def quotes(ctx: Context) -> bool:
        return await ctx.step("quote", a_quote) == QUOTE

    assert await run(store, quotes)


@pytest.mark.parametrize("named", [True, False])
async def test_a_lambda_needs_its_type_named(store: Store, clock: StandingClock, named: bool) -> None:
    async def quotes(ctx: Context) -> bool:
        return await ctx.step("quote", lambda: a_quote(), type=Quote if named else None) == QUOTE

    if named:
        assert await run(store, quotes)
    else:
        with pytest.raises(WorkflowFailed, match="the result of step 'quote' is a Quote and has no annotation"):
            await run(store, quotes)


async def test_arguments_are_handed_on(store: Store) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    async def adds(ctx: Context) -> int:
        return await ctx.step("add", add, 1, 2)

    assert await run(store, adds) == 3


async def test_a_step_runs_once_and_its_failure_is_final_without_a_policy(store: Store) -> None:
    calls: list[int] = []

    async def fails() -> None:
        calls.append(1)
        raise ValueError("no")

    async def tries(ctx: Context) -> str:
        try:
            await ctx.step("fails", fails)
        except ValueError as exc:
            cause = exc.__cause__
            return f"{exc} {cause.activity} {cause.attempts}" if isinstance(cause, ActivityFailed) else ""
        return "fine"

    assert await run(store, tries) == "no fails 1"
    assert calls == [1]


@pytest.mark.parametrize(
    ("errors", "attempts", "outcome"),
    [
        ([ValueError(), OSError()], 3, "fine"),
        ([ValueError(), NonRetryable("stop")], 2, "NonRetryable"),
        ([RetryAfter(0, "soon")], 2, "fine"),
        ([ValueError()] * 9, 4, "ValueError"),
    ],
)
async def test_a_policy_repeats_it(store: Store, errors: list[Exception], attempts: int, outcome: str) -> None:
    calls: list[int] = []

    async def fails() -> str:
        calls.append(1)
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "fine"

    async def tries(ctx: Context) -> str:
        try:
            return await ctx.step("fails", fails, retry=RetryPolicy(initial_interval=0, max_attempts=4))
        except Exception as exc:
            return type(exc).__name__

    assert await run(store, tries) == outcome
    assert len(calls) == attempts


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), GeneratorExit()], ids=repr)
async def test_whatever_a_step_raises_only_the_step_fails(store: Store, error: BaseException) -> None:
    async def fails() -> None:
        raise error

    async def tries(ctx: Context) -> str:
        try:
            await ctx.step("fails", fails)
        except ActivityFailed as exc:
            return exc.type_name
        return "fine"

    assert await run(store, tries) == f"{type(error).__module__}:{type(error).__name__}"


async def test_it_may_take_so_long_and_no_longer(store: Store) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def tries(ctx: Context) -> str:
        try:
            await ctx.step("hangs", hangs, timeout=0.01)
        except ActivityTimeout as exc:
            return exc.kind
        return "fine"

    assert await run(store, tries) == "start_to_close"


async def test_a_cancelled_step_is_stopped_and_its_workflow_goes_on(store: Store) -> None:
    stopped = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def cancels(ctx: Context) -> str:
        step = ctx.step("hangs", hangs)
        await ctx.step("quick", a_quote)
        step.cancel()
        try:
            await step
        except asyncio.CancelledError:
            return "cancelled"
        return "fine"

    assert await run(store, cancels) == "cancelled"
    assert stopped.is_set()


async def test_steps_run_side_by_side(store: Store) -> None:
    here: set[str] = set()

    async def meet(name: str) -> str:
        here.add(name)
        await eventually(lambda: len(here) == 3)
        return name

    async def meets(ctx: Context) -> list[str]:
        return await asyncio.gather(*(ctx.step(name, meet, name) for name in "abc"))

    assert await run(store, meets) == ["a", "b", "c"]


async def test_a_step_whose_worker_died_runs_again(store: Store, clock: StandingClock) -> None:
    calls: list[str] = []
    hold = asyncio.Event()

    async def slow() -> str:
        calls.append("begun")
        await hold.wait()
        return "done"

    @workflow
    async def waits(ctx: Context) -> str:
        first = await ctx.step("first", a_quote)
        return f"{first.lines} {await ctx.step('slow', slow)}"

    first = engine_of(store, waits)
    await first.__aenter__()
    await first.client.start(waits.bind(), id="w")
    await eventually(lambda: calls)
    await abandon(first)
    clock.advance(2 * FOR_EVER)
    async with engine_of(store, waits) as second:
        await eventually(lambda: len(calls) == 2)
        hold.set()
        handle = second.client.get(waits, "w")
        assert await handle.result(timeout=20) == "[('a', 1)] done"
        types = [event["type"] for event in await handle.history()]
    assert types.count("step_completed") == types.count("step_scheduled") == 2


async def test_a_step_that_a_shutdown_stops_runs_again_elsewhere(store: Store) -> None:
    calls: list[str] = []
    hold = asyncio.Event()

    async def slow() -> str:
        calls.append("begun")
        await hold.wait()
        return "done"

    @workflow
    async def waits(ctx: Context) -> str:
        return await ctx.step("slow", slow)

    async with engine_of(store, waits) as first:
        await first.client.start(waits.bind(), id="w")
        await eventually(lambda: calls)
    hold.set()
    async with engine_of(store, waits) as second:
        assert await second.client.get(waits, "w").result(timeout=20) == "done"
    assert len(calls) == 2


async def test_a_run_with_a_step_under_way_is_not_evicted_by_others(store: Store) -> None:
    calls: list[str] = []
    hold = asyncio.Event()

    async def slow() -> str:
        calls.append("begun")
        await hold.wait()
        return "done"

    @workflow
    async def waits(ctx: Context) -> str:
        return await ctx.step("slow", slow)

    @workflow
    async def quick(ctx: Context) -> None:
        await ctx.sleep(3_600)

    async with engine_of(store, waits, quick, cache_size=1) as engine:
        handle = await engine.client.start(waits.bind())
        for _ in range(20):
            await engine.client.start(quick.bind())
        hold.set()
        assert await handle.result(timeout=20) == "done"
    assert len(calls) == 1
