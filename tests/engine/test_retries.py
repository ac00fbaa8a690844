"""A failed attempt is made again as its policy says, by whichever engine is there; the key stays the same."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import derecho
from derecho import ActivityFailed, Context, NonRetryable, RetryAfter, RetryPolicy, Store, WorkflowFailed
from derecho.journal.model import ActivityRow
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually


class Declined(Exception): ...


class Diary:
    """What attempts did, as seen from outside."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.attempts: list[tuple[int, str]] = []

    def attempt(self) -> str:
        act = derecho.current_activity()
        self.attempts.append((act.attempt, act.idempotency_key))
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def diary() -> Diary:
    return derecho.current_activity().resource(Diary)


@derecho.activity("work")
async def work() -> str:
    return diary().attempt()


@derecho.activity("work_in_a_thread")
def work_in_a_thread() -> str:
    return diary().attempt()


EXACT = RetryPolicy(initial_interval=10, jitter=0.0)


@derecho.workflow
async def one_call(ctx: Context) -> str:
    return await ctx.execute(work.bind(), retry=EXACT)


@derecho.workflow
async def one_call_of_a_thread(ctx: Context) -> str:
    return await ctx.execute(work_in_a_thread.bind(), retry=EXACT)


def waiting_for_attempt(store: Store, run_id: str, attempt: int) -> Callable[[], Awaitable[ActivityRow | None]]:
    async def look() -> ActivityRow | None:
        for row in (await store.pending(run_id)).activities:
            if row.attempt == attempt and row.claim is None:
                return row
        return None

    return look


async def test_a_retry_comes_when_it_is_due(store: Store, clock: StandingClock) -> None:
    told = Diary(ValueError("1"), ValueError("2"))
    async with engine_of(store, one_call, work, resources={Diary: told}) as engine:
        handle = await engine.client.start(one_call.bind())
        for attempt, wait in [(2, 10), (3, 20)]:
            row = await eventually(waiting_for_attempt(store, handle.run_id, attempt))
            assert row is not None
            assert row.due_at == clock.now() + wait * 1_000_000
            clock.advance(wait)
        assert await handle.result(timeout=20) == "done"
    assert told.attempts == [(n, f"{handle.run_id}:3") for n in (1, 2, 3)]


async def test_a_retry_outlives_its_engine_and_keeps_its_key(store: Store, clock: StandingClock) -> None:
    first, second = Diary(ValueError("1")), Diary()
    async with engine_of(store, one_call, work, resources={Diary: first}) as engine:
        handle = await engine.client.start(one_call.bind(), id="w")
        await eventually(waiting_for_attempt(store, handle.run_id, 2))
    clock.advance(10)
    async with engine_of(store, one_call, work, resources={Diary: second}) as engine:
        assert await engine.client.get(one_call, "w").result(timeout=20) == "done"
    [(one, key), (two, same)] = first.attempts + second.attempts
    assert (one, two, key) == (1, 2, same)


async def test_keys_differ_between_activities_and_between_runs(store: Store) -> None:
    @derecho.workflow
    async def three_calls(ctx: Context) -> None:
        await asyncio.gather(*(work.execute(ctx) for _ in range(3)))

    told = Diary()
    async with engine_of(store, three_calls, work, resources={Diary: told}) as engine:
        for _ in range(2):
            await engine.client.run(three_calls.bind(), id="the same id")
    assert len({key for _, key in told.attempts}) == 6


async def failed(handle: derecho.Handle[Any]) -> BaseException:
    with pytest.raises(WorkflowFailed) as caught:
        await handle.result(timeout=20)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


@pytest.mark.parametrize(
    ("policy", "errors", "attempts"),
    [
        (RetryPolicy(max_attempts=3, initial_interval=0), [ValueError(str(n)) for n in range(5)], 3),
        (RetryPolicy.none(), [ValueError("0")], 1),
        (RetryPolicy(initial_interval=0, give_up_on=(Declined,)), [ValueError(), Declined("no")], 2),
        (RetryPolicy(initial_interval=0, retry_on=(OSError,)), [ConnectionError(), Declined("no")], 2),
        (RetryPolicy(initial_interval=0), [ValueError(), NonRetryable("stop")], 2),
    ],
)
async def test_the_last_error_is_what_the_workflow_sees(
    store: Store, policy: RetryPolicy, errors: list[Exception], attempts: int
) -> None:
    @derecho.workflow
    async def calls(ctx: Context) -> str:
        return await ctx.execute(work.bind(), retry=policy)

    told, last = Diary(*errors), errors[attempts - 1]
    async with engine_of(store, calls, work, resources={Diary: told}) as engine:
        error = await failed(await engine.client.start(calls.bind()))
    assert (type(error), str(error)) == (type(last), str(last))
    assert isinstance(error.__cause__, ActivityFailed)
    assert error.__cause__.attempts == attempts == len(told.attempts)


async def test_an_error_says_itself_when_to_come_back(store: Store, clock: StandingClock) -> None:
    told = Diary(RetryAfter(3_600, "the bank is closed"))
    async with engine_of(store, one_call, work, resources={Diary: told}) as engine:
        handle = await engine.client.start(one_call.bind())
        row = await eventually(waiting_for_attempt(store, handle.run_id, 2))
        assert row is not None
        assert row.due_at == clock.now() + 3_600 * 1_000_000
        clock.advance(3_600)
        assert await handle.result(timeout=20) == "done"


class Strange(BaseException): ...


@pytest.mark.parametrize("calls", [one_call, one_call_of_a_thread], ids=lambda w: str(w.name))
@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), Strange("x"), StopIteration(1)], ids=repr
)
async def test_whatever_an_activity_raises_only_its_attempt_fails(
    store: Store, clock: StandingClock, error: BaseException, calls: Any
) -> None:
    told = Diary(error)
    async with engine_of(store, calls, work, work_in_a_thread, resources={Diary: told}) as engine:
        handle = await engine.client.start(calls.bind())
        await eventually(waiting_for_attempt(store, handle.run_id, 2))
        clock.advance(10)
        assert await handle.result(timeout=20) == "done"
    assert [attempt for attempt, _ in told.attempts] == [1, 2]
