"""The four timeouts: none early, each attempt anew, the final ones final. (G20, R08, R09)"""

import asyncio
from typing import Any

import pytest

import derecho
from derecho import ActivityTimeout, RetryPolicy, Store
from derecho.clock import SECOND
from derecho.journal.changes import RetryActivity
from derecho.testing.clock import VirtualClock
from tests.activities.kit import Probe, calling, engine, failure_of, outcomes, probe, quiet
from tests.support.world import eventually

AT_ONCE = RetryPolicy(initial_interval=0)


@derecho.activity
async def stall(good: int = 0) -> int:
    """Hangs, but for attempt number `good`."""
    attempt = probe().enter().attempt
    if attempt != good:
        await probe().go.wait()
    return attempt


@derecho.activity("stall in a minute", start_to_close=60, heartbeat_timeout=60, schedule_to_close=60, retry=AT_ONCE)
async def stall_in_a_minute() -> int:
    probe().enter()
    await probe().go.wait()
    return 0


@derecho.activity_ref("nobody has this")
def nowhere() -> None:
    raise NotImplementedError


@pytest.mark.parametrize("option", ["start_to_close", "heartbeat_timeout"])
async def test_a_timeout_of_one_attempt_asks_the_policy_and_holds_for_later_attempts(
    store: Store, clock: VirtualClock, option: str
) -> None:
    seen = Probe()
    options: dict[str, Any] = {option: 10, "retry": AT_ONCE}
    async with engine(store, caller := calling(stall.bind(3), **options), stall, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        for attempt in (1, 2):
            await seen.began(attempt)
            clock.advance(10 * SECOND - 1)
            await quiet()
            assert [item.cancel_reason for item in seen.attempts[attempt - 1 :]] == [None], "early"
            clock.advance(1)
        assert await handle.result(timeout=10) == 3
    assert [item.attempt for item in seen.attempts] == [1, 2, 3]
    assert [item.cancel_reason for item in seen.attempts] == ["timeout", "timeout", None]


@pytest.mark.parametrize(("option", "kind"), [("start_to_close", "start_to_close"), ("heartbeat_timeout", "heartbeat")])
async def test_when_the_policy_gives_up_the_timeout_is_what_the_workflow_sees(
    store: Store, clock: VirtualClock, option: str, kind: str
) -> None:
    seen = Probe()
    options: dict[str, Any] = {option: 10, "retry": RetryPolicy(initial_interval=0, max_attempts=2)}
    async with engine(store, caller := calling(stall.bind(), **options), stall, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        for attempt in (1, 2):
            await seen.began(attempt)
            clock.advance(10 * SECOND)
        error = await failure_of(handle)
    assert isinstance(error, ActivityTimeout)
    assert (error.kind, error.activity, error.attempts) == (kind, "stall", 2)


async def test_schedule_to_close_bounds_all_attempts_and_names_the_last_failure(
    store: Store, clock: VirtualClock
) -> None:
    @derecho.activity
    async def fail_then_stall() -> None:
        if probe().enter().attempt == 1:
            raise ValueError("the first attempt")
        await probe().go.wait()

    seen = Probe()
    caller = calling(fail_then_stall.bind(), schedule_to_close=30, retry=AT_ONCE)
    async with engine(store, caller, fail_then_stall, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(2)
        clock.advance(30 * SECOND - 1)
        await quiet()
        assert (await handle.describe()).status == "running", "early"
        clock.advance(1)
        error = await failure_of(handle)
    assert isinstance(error, ActivityTimeout)
    assert error.kind == "schedule_to_close"
    assert isinstance(error.__cause__, ValueError)
    assert len(await outcomes(store, handle.run_id)) == 1


async def test_no_attempt_is_made_that_could_only_begin_after_schedule_to_close(store: Store) -> None:
    @derecho.activity
    async def fail() -> None:
        probe().enter()
        raise ValueError("no")

    seen = Probe()
    caller = calling(fail.bind(), schedule_to_close=5, retry=RetryPolicy(initial_interval=60, jitter=0))
    async with engine(store, caller, fail, probe=seen) as running:
        error = await failure_of(await running.client.start(caller.bind()))
    assert isinstance(error, ActivityTimeout)
    assert error.kind == "schedule_to_close"
    assert isinstance(error.__cause__, ValueError)
    assert len(seen.attempts) == 1


async def test_schedule_to_start_is_final_and_says_that_nobody_took_it(store: Store, clock: VirtualClock) -> None:
    caller = calling(nowhere.bind(), schedule_to_start=20, retry=AT_ONCE)
    async with engine(store, caller) as running:
        handle = await running.client.start(caller.bind())
        assert (await _blocked(handle)).blocked_reason is not None
        clock.advance(20 * SECOND - 1)
        await quiet()
        assert (await handle.describe()).closed_at is None, "early"
        clock.advance(1)
        error = await failure_of(handle)
    assert isinstance(error, ActivityTimeout)
    assert error.kind == "schedule_to_start"


async def test_schedule_to_start_bounds_the_first_attempt_only(store: Store, clock: VirtualClock) -> None:
    seen = Probe()
    options: dict[str, Any] = {"schedule_to_start": 5, "start_to_close": 10, "retry": AT_ONCE}
    async with engine(store, caller := calling(stall.bind(2), **options), stall, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        clock.advance(10 * SECOND)
        assert await handle.result(timeout=10) == 2


@pytest.mark.parametrize("option", ["start_to_close", "heartbeat_timeout", "schedule_to_close"])
async def test_a_call_may_differ_from_its_definition(store: Store, clock: VirtualClock, option: str) -> None:
    seen = Probe()
    options: dict[str, Any] = {option: 7, "retry": RetryPolicy.none()}
    caller = calling(stall_in_a_minute.bind(), **options)
    async with engine(store, caller, stall_in_a_minute, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        clock.advance(7 * SECOND)
        error = await failure_of(handle)
    assert isinstance(error, ActivityTimeout)
    assert error.kind == option.removesuffix("_timeout")


async def test_an_activity_that_another_engine_claimed_later_has_its_deadlines(
    store: Store, clock: VirtualClock
) -> None:
    """The first attempt is not dispatched by the engine that scheduled it, so its deadline comes with the claim."""
    seen = Probe()
    caller = calling(stall.bind(), start_to_close=10, schedule_to_start=5, retry=RetryPolicy.none())
    async with engine(store, caller) as deciding:
        handle = await deciding.client.start(caller.bind())
        await _blocked(handle)
        clock.advance(4 * SECOND)
        async with engine(store, stall, probe=seen):
            await seen.began(1)
            clock.advance(10 * SECOND - 1)
            await quiet()
            assert seen.attempts[0].cancel_reason is None, "schedule_to_start must not run on, nor start_to_close early"
            clock.advance(1)
            error = await failure_of(handle)
    assert isinstance(error, ActivityTimeout)
    assert error.kind == "start_to_close"


async def _blocked(handle: derecho.Handle[Any]) -> derecho.Run:
    while True:
        run = await handle.describe()
        if run.status == "blocked":
            return run
        await asyncio.sleep(0.002)


async def test_a_result_that_comes_after_its_timeout_changes_nothing(store: Store, clock: VirtualClock) -> None:
    """G17, and the ghost attempt of R09: the first attempt ends well, but late; only the second one counts."""

    @derecho.activity
    async def stubborn() -> int:
        attempt = probe().enter().attempt
        try:
            await probe().go.wait()
        except asyncio.CancelledError:
            return -attempt
        return attempt

    seen = Probe()
    caller = calling(stubborn.bind(), start_to_close=10, retry=AT_ONCE)
    async with engine(store, caller, stubborn, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        clock.advance(10 * SECOND)
        await seen.began(2)
        seen.go.set()
        assert await handle.result(timeout=10) == 2
    assert len(await outcomes(store, handle.run_id)) == 1


async def test_the_result_of_a_superseded_attempt_is_refused_by_its_claim(store: Store) -> None:
    """G17: the attempt does not know yet that it was replaced; only the token of its claim says so."""

    @derecho.activity
    async def twice() -> int:
        attempt = probe().enter().attempt
        if attempt == 1:
            await probe().go.wait()
        else:
            await eventually(lambda: probe().attempts[0].attempt and not _is_running(running, 1))
        return attempt

    seen = Probe()
    async with engine(store, caller := calling(twice.bind()), twice, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        [row] = (await store.pending(handle.run_id)).activities
        retry = RetryActivity(row.run_id, row.activity, row.claim or "", 2, store.now(), None, None)
        await store.commit([(retry,)])
        await seen.began(2)
        seen.go.set()
        assert await handle.result(timeout=10) == 2
    assert len(await outcomes(store, handle.run_id)) == 1


def _is_running(running: derecho.Engine, attempt: int) -> bool:
    return any(item.row.attempt == attempt for item in running.activities.running())
