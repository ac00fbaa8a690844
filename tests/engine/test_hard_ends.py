"""Terminate ends a run at once, whatever its code does; code that holds the thread hurts nobody else."""

import asyncio
import inspect
import logging
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import derecho
from derecho import Context, Handle, Store, WorkflowTerminated
from derecho.engine.runs import LiveRun, Turn
from derecho.journal.payloads import Converter
from derecho.journal.wire import HistoryRow, verify
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually, quick_hand_over


@derecho.activity
async def work() -> str:
    return "done"


@derecho.activity
async def hangs() -> None:
    await asyncio.Event().wait()


@derecho.workflow
async def healthy(ctx: Context) -> str:
    return await work.execute(ctx)


@derecho.workflow
async def waits(ctx: Context) -> None:
    await asyncio.gather(hangs.execute(ctx), ctx.sleep(3_600), ctx.wait_for(lambda: False))


released = threading.Event()


@pytest.fixture(autouse=True)
def release() -> Iterator[None]:
    """Let code that blocks go in the end, so that its thread ends with the test."""
    released.clear()
    with quick_hand_over():
        yield
    released.set()


@derecho.workflow
async def blocks(ctx: Context) -> str:
    await work.execute(ctx)
    released.wait()  # here
    return "went on"


@derecho.workflow
async def spins(ctx: Context) -> str:
    while not released.is_set():
        pass
    return "went on"


@derecho.workflow
async def spins_in_clean_up(ctx: Context) -> str:
    try:
        await ctx.sleep(3_600)
    finally:
        while not released.is_set():
            pass
    return "slept"


async def terminated(handle: Handle[Any]) -> None:
    await handle.terminate("enough")
    with pytest.raises(WorkflowTerminated, match="enough") as caught:
        await handle.result(timeout=20)
    assert (caught.value.workflow_id, caught.value.run_id, caught.value.reason) == (handle.id, handle.run_id, "enough")
    assert (await handle.describe()).status == "terminated"
    events = [event["type"] for event in await handle.history()]
    assert events.index("workflow_terminated") == len(events) - 1


async def test_it_leaves_nothing_behind_in_any_queue(store: Store) -> None:
    async with engine_of(store, waits, hangs) as engine:
        handle = await engine.client.start(waits.bind())
        await eventually(lambda: has_work(store, handle.run_id))
        await terminated(handle)
        pending = await store.pending(handle.run_id)
        assert (pending.activities, pending.timers, pending.messages) == ([], [], [])
        await handle.terminate("again, harmlessly")


async def has_work(store: Store, run_id: str) -> bool:
    pending = await store.pending(run_id)
    return bool(pending.activities and pending.timers)


async def test_no_worker_is_needed_for_it(store: Store) -> None:
    async with derecho.Client(store) as client:
        await terminated(await client.start(waits.bind()))


async def test_what_is_under_way_when_it_comes_is_discarded(store: Store) -> None:
    began = asyncio.Event()
    ended: list[str] = []

    @derecho.activity
    async def slow() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("stopped")

    @derecho.workflow
    async def calls(ctx: Context) -> None:
        try:
            await slow.execute(ctx)
        finally:
            await work.execute(ctx)

    async with engine_of(store, calls, slow, work) as engine:
        handle = await engine.client.start(calls.bind())
        await began.wait()
        await terminated(handle)
        await eventually(lambda: ended)
        assert len(await handle.history()) == 4


@pytest.mark.parametrize("stuck", [blocks, spins], ids=lambda w: str(w.name))
async def test_code_that_holds_the_thread_is_blocked_with_its_line_and_others_go_on(
    store: Store, clock: StandingClock, stuck: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_of(store, stuck, healthy, work, deadlock_timeout=0.05) as engine:
        handle = await engine.client.start(stuck.bind(), id="w")
        reason = await eventually(lambda: blocked_reason(handle))
        for _ in range(5):
            assert await engine.client.run(healthy.bind()) == "done"
        assert (await handle.describe()).status == "blocked"
        released.set()
        clock.advance(600)
        assert await handle.result(timeout=20) == "went on"
    lines, first = inspect.getsourcelines(stuck.fn)
    places = [first + n for n, line in enumerate(lines) if "released" in line or "pass" in line]
    assert any(f"engine/test_hard_ends.py:{line}: move what takes long into an activity" in reason for line in places)
    record = next(record for record in caplog.records if "workflow code held its thread" in record.message)
    assert (record.levelno, vars(record)["workflow_id"]) == (logging.ERROR, "w")
    assert "test_hard_ends.py" in record.message


async def blocked_reason(handle: Handle[Any]) -> str | None:
    return (await handle.describe()).blocked_reason


@pytest.mark.parametrize("stuck", [blocks, spins], ids=lambda w: str(w.name))
async def test_a_stuck_run_is_terminated_at_once(store: Store, stuck: Any) -> None:
    async with engine_of(store, stuck, healthy, work, deadlock_timeout=0.05) as engine:
        handle = await engine.client.start(stuck.bind())
        await eventually(lambda: blocked_reason(handle))
        await terminated(handle)
        assert await engine.client.run(healthy.bind()) == "done"


async def test_a_stuck_run_is_terminated_also_when_nobody_has_noticed_yet(store: Store) -> None:
    async with engine_of(store, spins, healthy, work, deadlock_timeout=0.2) as engine:
        handle = await engine.client.start(spins.bind())
        await terminated(handle)
        assert await engine.client.run(healthy.bind()) == "done"


async def test_code_that_holds_the_thread_when_it_is_taken_down_holds_nobody_else(store: Store) -> None:
    async with engine_of(store, spins_in_clean_up, healthy, work, deadlock_timeout=0.05, cache_size=0) as engine:
        await engine.client.start(spins_in_clean_up.bind())
        for _ in range(5):
            assert await engine.client.run(healthy.bind()) == "done"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), RecursionError()], ids=repr)
async def test_code_that_wants_to_end_the_process_is_blocked(store: Store, error: BaseException) -> None:
    @derecho.workflow
    async def exits(ctx: Context) -> None:
        raise error

    async with engine_of(store, exits, healthy, work) as engine:
        handle = await engine.client.start(exits.bind())
        assert type(error).__name__ in str(await eventually(lambda: blocked_reason(handle)))
        assert await engine.client.run(healthy.bind()) == "done"


async def test_the_limit_begins_anew_with_each_replayed_task(store: Store) -> None:
    """It is for the author's code between two awaits, not for a history with many tasks."""

    @derecho.workflow
    async def many(ctx: Context) -> None:
        for _ in range(50):
            await work.execute(ctx)
        await ctx.sleep(3_600)

    async with engine_of(store, many, work) as engine:
        handle = await engine.client.start(many.bind())
        rows = await eventually(lambda: fifty_tasks(store, handle.run_id))
    row, marks = await store.get_run(handle.run_id), list[int]()
    assert row is not None
    make = partial(many.new_execution, "w", row.run_id, Converter())
    turn = Turn(LiveRun(row, many), (), row.started_at, verify(rows), lambda _: make())
    turn.run(lambda: marks.append(1))
    turn.abandon()
    assert turn.error is None
    assert len(marks) >= 50


async def fifty_tasks(store: Store, run_id: str) -> list[HistoryRow]:
    rows = (await store.load([run_id]))[run_id]
    return rows if len(rows) > 50 else []
