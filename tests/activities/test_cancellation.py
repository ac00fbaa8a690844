"""Cancelling arrives where the code runs, and the workflow can wait for the clean-up. (G23)"""

import asyncio
import time
from pathlib import Path
from typing import Any, Literal

import pytest

import derecho
from derecho import Context, RetryPolicy, Store, SyncActivity
from derecho.clock import SECOND
from derecho.journal import events as ev
from derecho.testing.clock import VirtualClock
from tests.activities import crashers
from tests.activities.kit import Probe, calling, engine, outcomes, probe, quiet
from tests.support.world import eventually


@derecho.activity
async def on_loop() -> None:
    act = probe().enter()
    try:
        await asyncio.sleep(60)
    finally:
        await quiet(0.02)
        probe().notes.append(f"cleaned up: {act.cancel_reason}")


@derecho.activity
def in_thread() -> None:
    act = probe().enter()
    try:
        while True:
            time.sleep(0.001)
    finally:
        probe().notes.append(f"cleaned up: {act.cancel_reason}")


@derecho.activity
def by_flag() -> str:
    """Code that looks for itself, and ends well."""
    act = probe().enter()
    try:
        while True:
            time.sleep(0.001)
    except asyncio.CancelledError:
        probe().notes.append(act.cancelled())
        return "ended well"


async def cancelling(ctx: Context, activity: Any, on_cancel: Literal["request", "wait"], *args: str) -> str:
    """Cancel an activity once it runs."""
    call = ctx.execute(activity.bind(*args), on_cancel=on_cancel)
    await ctx.signals(GO).receive()
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return "cancelled"
    return "went on"


GO = derecho.Signal("go", bool)


@pytest.mark.parametrize("activity", [on_loop, in_thread], ids=["loop", "thread"])
async def test_a_workflow_that_waits_goes_on_after_the_clean_up(store: Store, activity: SyncActivity[[], Any]) -> None:
    seen = Probe()

    @derecho.workflow
    async def waiter(ctx: Context) -> str:
        return await cancelling(ctx, activity, "wait")

    async with engine(store, waiter, on_loop, in_thread, probe=seen) as running:
        handle = await running.client.start(waiter.bind())
        await seen.began(1)
        await handle.signal(GO, True)
        assert await handle.result(timeout=10) == "cancelled"
        assert seen.notes == ["cleaned up: requested"], "before the workflow went on"
    assert [type(outcome) for outcome in await outcomes(store, handle.run_id)] == [ev.ActivityCancelled]


async def test_a_workflow_that_only_requests_goes_on_at_once_and_the_activity_ends_all_the_same(store: Store) -> None:
    seen = Probe()

    @derecho.activity
    async def slow_to_end() -> None:
        act = probe().enter()
        try:
            await asyncio.sleep(60)
        finally:
            await probe().go.wait()
            probe().notes.append(act.cancel_reason)

    @derecho.workflow
    async def asker(ctx: Context) -> str:
        return await cancelling(ctx, slow_to_end, "request")

    async with engine(store, asker, slow_to_end, probe=seen) as running:
        handle = await running.client.start(asker.bind())
        await seen.began(1)
        await handle.signal(GO, True)
        assert await handle.result(timeout=10) == "cancelled"
        assert seen.notes == [], "it is still cleaning up"
        seen.go.set()
        await eventually(lambda: len(seen.notes) == 1)


async def test_a_process_is_killed_and_its_end_awaited(store: Store, tmp_path: Path) -> None:
    @derecho.workflow
    async def killer(ctx: Context) -> str:
        return await cancelling(ctx, crashers.spin, "wait", str(tmp_path / "pid"))

    async with engine(store, killer, crashers.spin) as running:
        handle = await running.client.start(killer.bind())
        pid = await eventually(lambda: crashers.pid_in(tmp_path / "pid"))
        await handle.signal(GO, True)
        assert await handle.result(timeout=20) == "cancelled"
        assert not crashers.is_alive(pid)


async def test_a_result_returned_after_the_request_is_recorded(store: Store) -> None:
    """A swallowed cancel does not lose the outcome."""
    seen = Probe()

    @derecho.workflow
    async def waiter(ctx: Context) -> str:
        return await cancelling(ctx, by_flag, "wait")

    async with engine(store, waiter, by_flag, probe=seen) as running:
        handle = await running.client.start(waiter.bind())
        await seen.began(1)
        await handle.signal(GO, True)
        await handle.result(timeout=10)
    assert seen.notes == [True]
    assert [type(outcome) for outcome in await outcomes(store, handle.run_id)] == [ev.ActivityCompleted]


@pytest.mark.parametrize("activity", [on_loop, in_thread], ids=["loop", "thread"])
async def test_an_overrun_stops_the_attempt_the_same_way(
    store: Store, clock: VirtualClock, activity: SyncActivity[[], Any]
) -> None:
    seen = Probe()
    caller = calling(activity.bind(), start_to_close=5, retry=RetryPolicy.none())
    async with engine(store, caller, activity, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        clock.advance(5 * SECOND)
        await eventually(lambda: seen.notes == ["cleaned up: timeout"])
        with pytest.raises(derecho.WorkflowFailed):
            await handle.result(timeout=10)


@pytest.mark.parametrize("how", ["cancel", "terminate", "by heartbeat"])
async def test_the_end_of_a_run_reaches_its_activity_in_another_engine(store: Store, how: str) -> None:
    """Nothing but the store connects the two; the attempt learns of it within a third of a lease, or by a heartbeat."""
    seen = Probe()

    @derecho.activity
    async def elsewhere() -> None:
        act = probe().enter()
        while how == "by heartbeat":
            act.heartbeat()
            await asyncio.sleep(0.01)
        await asyncio.sleep(60)

    caller = calling(elsewhere.bind(), heartbeat_timeout=0.02 if how == "by heartbeat" else None, on_cancel="wait")
    lease = 60.0 if how == "by heartbeat" else 0.6
    async with engine(store, elsewhere, probe=seen, lease=lease), engine(store, caller, lease=60) as deciding:
        handle = await deciding.client.start(caller.bind())
        await seen.began(1)
        await (handle.terminate() if how == "terminate" else handle.cancel())
        await eventually(lambda: seen.attempts[0].cancel_reason)
        with pytest.raises(derecho.WorkflowTerminated if how == "terminate" else derecho.WorkflowCancelled):
            await handle.result(timeout=10)
    assert seen.attempts[0].cancel_reason == ("lost" if how == "terminate" else "requested")


async def test_a_cancelled_activity_that_waits_for_its_retry_never_runs_again(store: Store) -> None:
    """The request and the failure of the attempt may cross: then the next claim ends it, code is not called."""
    seen = Probe()

    @derecho.activity(retry=RetryPolicy(initial_interval=1000, jitter=0))
    async def failing() -> None:
        probe().enter()
        raise ValueError("again")

    @derecho.workflow
    async def waiter(ctx: Context) -> str:
        return await cancelling(ctx, failing, "wait")

    async with engine(store, waiter, failing, probe=seen) as running:
        handle = await running.client.start(waiter.bind())
        await seen.began(1)
        await handle.signal(GO, True)
        assert await handle.result(timeout=10) == "cancelled"
    assert len(seen.attempts) == 1


async def test_code_that_cancels_itself_has_failed(store: Store) -> None:
    """Nobody asked for it, so it is no cancellation, and the attempt is not left hanging."""

    @derecho.activity(retry=RetryPolicy.none())
    async def confused() -> None:
        raise asyncio.CancelledError("of my own")

    async with engine(store, caller := calling(confused.bind()), confused) as running:
        handle = await running.client.start(caller.bind())
        with pytest.raises(derecho.WorkflowFailed, match="CancelledError"):
            await handle.result(timeout=10)
