"""Starting and stopping an engine: nothing begins before it, nothing is lost after it."""

import asyncio
import logging
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import derecho
from derecho import Client, Context, DefinitionError, Engine, MemoryStore, Store, StoreUnavailable
from tests.support.world import engine_of, eventually
from tests.support.wrapped import Weather, wrapped


@derecho.activity
async def work() -> str:
    return "done"


@derecho.workflow
async def order(ctx: Context) -> str:
    return await work.execute(ctx)


async def test_its_client_works_before_it_runs_and_after_it_stopped(store: Store) -> None:
    engine = engine_of(store, order, work)
    handle = await engine.client.start(order.bind(), id="w")
    assert (await handle.describe()).status == "running"
    async with engine:
        assert await handle.result(timeout=20) == "done"
    assert await Client(store).get(order, "w").result(timeout=20) == "done"


async def test_run_drains_when_it_is_cancelled_and_says_so(store: Store) -> None:
    began, go_on, ended = asyncio.Event(), asyncio.Event(), list[str]()

    @derecho.activity
    async def slow() -> str:
        began.set()
        await go_on.wait()
        ended.append("ended")
        return "done"

    @derecho.workflow
    async def calls(ctx: Context) -> str:
        return await slow.execute(ctx)

    engine = engine_of(store, calls, slow, shutdown_timeout=20)
    running = asyncio.create_task(engine.run())
    handle = await Client(store).start(calls.bind(), id="w")
    await began.wait()
    running.cancel()
    await asyncio.sleep(0)
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["ended"]
    pending = await store.pending(handle.run_id)
    assert pending.activities == []
    async with engine_of(store, calls, slow) as other:
        assert await other.client.get(calls, "w").result(timeout=20) == "done"
    assert ended == ["ended"]


async def test_an_activity_that_does_not_end_in_time_is_handed_over_as_the_same_attempt(store: Store) -> None:
    attempts: list[int] = []
    go_on = asyncio.Event()

    @derecho.activity
    async def slow() -> str:
        attempts.append(derecho.current_activity().attempt)
        await go_on.wait()
        return "done"

    @derecho.workflow
    async def calls(ctx: Context) -> str:
        return await slow.execute(ctx)

    async with engine_of(store, calls, slow, shutdown_timeout=0) as engine:
        await engine.client.start(calls.bind(), id="w")
        await eventually(lambda: attempts)
    go_on.set()
    async with engine_of(store, calls, slow) as other:
        assert await other.client.get(calls, "w").result(timeout=20) == "done"
    assert attempts == [1, 1]


async def test_the_actors_execute_runs_until_it_is_interrupted(store: Store) -> None:
    execute, interrupt = engine_of(store, order, work).actor()
    running = asyncio.create_task(execute())
    assert await asyncio.wait_for((await Client(store).start(order.bind())).result(), 20) == "done"
    interrupt()
    await asyncio.wait_for(running, 20)


async def test_an_actor_interrupted_before_it_ran_returns_at_once(store: Store) -> None:
    execute, interrupt = engine_of(store, order, work).actor()
    interrupt()
    await asyncio.wait_for(execute(), 20)


async def test_an_engine_runs_once_at_a_time(store: Store) -> None:
    engine = engine_of(store, order, work)
    async with engine:
        with pytest.raises(DefinitionError, match="running already"):
            await engine.__aenter__()


async def test_an_engine_that_has_stopped_says_so_instead_of_doing_nothing(store: Store) -> None:
    engine = engine_of(store, order, work)
    async with engine:
        pass
    with pytest.raises(DefinitionError, match="has stopped: make another one on the same store"):
        await engine.__aenter__()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workflows": [order, derecho.workflow("order")(order.fn)]}, "two workflows are registered as 'order'"),
        ({"activities": [work, derecho.activity("work", retry=None)(work.fn)]}, "two activities are registered"),
        ({"workflows": [work]}, "workflows= takes what @derecho.workflow made"),
        ({"activities": [order]}, "activities= takes what @derecho.activity made"),
        ({"workflows": [derecho.workflow_ref("far")(order.fn)]}, "only a reference"),
        ({"lease": 0}, "lease must be longer than nothing"),
        ({"max_concurrent_activities": 0}, "must be at least 1"),
        ({"max_concurrent_activities": 2.5}, "a whole number, not 2.5"),
        ({"max_processes": 0}, "max_processes must be at least 1"),
        ({"cache_size": -1}, "cache_size must be at least 0"),
        ({"lease": "10"}, "a duration is a timedelta or a number of seconds, not '10'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((DefinitionError, TypeError), match=message):
        Engine(MemoryStore(), **options)


async def test_no_more_activities_run_at_once_than_there_are_slots(store: Store) -> None:
    running, most = 0, 0

    @derecho.activity
    async def counted() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1

    @derecho.workflow
    async def many(ctx: Context) -> None:
        await asyncio.gather(*(counted.execute(ctx) for _ in range(40)))

    async with engine_of(store, many, counted, max_concurrent_activities=3) as engine:
        await engine.client.run(many.bind())
    assert most == 3


async def test_records_name_the_run_the_activity_and_the_attempt(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    @derecho.activity(retry=derecho.RetryPolicy.none())
    async def fails() -> None:
        derecho.current_activity().log.info("trying")
        raise ValueError("no")

    @derecho.workflow
    async def calls(ctx: Context) -> None:
        ctx.log.info("calling")
        await fails.execute(ctx)

    caplog.set_level(logging.INFO, "derecho")
    async with engine_of(store, calls, fails) as engine:
        handle = await engine.client.start(calls.bind(), id="w")
        with pytest.raises(derecho.WorkflowFailed):
            await handle.result(timeout=20)
    told = {record.getMessage(): vars(record) for record in caplog.records}
    for text in ("calling", "trying", "activity 'fails' failed for good after attempt 1: ValueError: no"):
        fields = told[text]
        assert (fields["workflow_id"], fields["run_id"], fields["workflow_type"]) == ("w", handle.run_id, "calls")
        assert text == "calling" or (fields["activity"], fields["attempt"]) == ("fails", 1)


async def test_the_cost_of_an_activity_does_not_grow_with_the_history(store: Store) -> None:
    """Counted in what is sent to the store for each activity of a long run."""

    @derecho.workflow
    async def many(ctx: Context, count: int) -> None:
        for _ in range(count):
            await work.execute(ctx)

    async with engine_of(store, many, work) as engine:
        costs = []
        for count in (50, 200):
            before = engine.committer.transitions
            handle = await engine.client.start(many.bind(count))
            await handle.result(timeout=30)
            rows = (await store.load([handle.run_id]))[handle.run_id]
            costs.append((engine.committer.transitions - before, sum(len(row.data) for row in rows)))
    assert costs[1][0] <= 4.2 * costs[0][0]
    assert costs[1][1] <= 4.2 * costs[0][1]


async def test_an_engine_whose_loop_is_blocked_is_not_taken_for_dead() -> None:
    store = MemoryStore()
    alive: list[bool] = []

    @derecho.activity
    async def slip() -> None:
        """It holds the engine's loop for longer than the lease."""
        with ThreadPoolExecutor(1) as elsewhere:
            for _ in range(22):
                time.sleep(0.1)  # noqa: ASYNC251  (this is the slip)
                alive.append(bool(elsewhere.submit(asyncio.run, store.workers()).result()))

    @derecho.workflow
    async def calls(ctx: Context) -> None:
        await slip.execute(ctx)

    async with engine_of(store, calls, slip, lease=1.5) as engine:
        await engine.client.run(calls.bind())
    assert len(alive) == 22
    assert all(alive)


async def test_a_start_that_is_given_up_leaves_no_lease_behind() -> None:
    async def list_runs(original: Any, where: Any) -> Any:
        await asyncio.Event().wait()

    before = set(threading.enumerate())
    engine = engine_of(wrapped(MemoryStore(), list_runs=list_runs), order, work)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.__aenter__(), 0.05)
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "derecho-lease"]


async def test_a_stop_that_is_cut_short_lets_the_lease_run_out() -> None:
    """What is left behind must come free."""
    began = asyncio.Event()

    @derecho.activity
    async def hangs() -> None:
        began.set()
        await asyncio.Event().wait()

    @derecho.workflow
    async def calls(ctx: Context) -> None:
        await hangs.execute(ctx)

    engine = engine_of(MemoryStore(), calls, hangs, shutdown_timeout=60, lease=2)
    await engine.__aenter__()
    await engine.client.start(calls.bind())
    await began.wait()
    stopping = asyncio.create_task(engine._stop())
    await eventually(lambda: engine.activities.draining)
    await asyncio.sleep(0.01)
    stopping.cancel()
    await asyncio.wait({stopping})
    thread = engine.lease._thread
    assert thread is not None
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()
    for attempt in engine.activities.running():
        attempt.abandon()
    await engine.client.close()
    engine.workflows.turns.close()


async def test_an_engine_that_hears_no_hint_finds_its_work_all_the_same() -> None:
    async def wait(original: Any, topic: str, seen: int, timeout: float) -> None:
        await asyncio.sleep(timeout)

    store = MemoryStore()
    async with engine_of(wrapped(store, wait=wait), order, work, lease=2):
        handle = await Client(store).start(order.bind(), id="w")
        assert await handle.result(timeout=20) == "done"


async def test_an_engine_that_stops_has_nothing_to_complain_about(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_of(store, order, work) as engine:
        assert await engine.client.run(order.bind()) == "done"
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in errors if record.name.startswith("derecho")] == []


class Pool:
    opened = 0


@asynccontextmanager
async def pool() -> AsyncIterator[Pool]:
    Pool.opened += 1
    try:
        yield Pool()
    finally:
        Pool.opened -= 1


async def test_a_start_that_is_given_up_leaves_nothing_open_and_can_be_made_again(store: Store) -> None:
    weather = Weather(StoreUnavailable("the database is away"))
    weather.bad = True
    engine = engine_of(wrapped(store, commit=weather), order, work, resources={Pool: pool})
    starting = asyncio.create_task(engine.__aenter__())
    await eventually(lambda: weather.struck > 1)
    assert Pool.opened == 1
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert Pool.opened == 0
    weather.bad = False
    async with engine:
        assert Pool.opened == 1
        assert await engine.client.run(order.bind()) == "done"
    assert Pool.opened == 0


async def test_a_stop_that_is_cut_short_leaves_nothing_open(tmp_path: Path) -> None:
    began = asyncio.Event()

    @derecho.activity
    async def hangs() -> None:
        began.set()
        await asyncio.Event().wait()

    @derecho.workflow
    async def calls(ctx: Context) -> None:
        await hangs.execute(ctx)

    engine = Engine(f"sqlite:///{tmp_path}/shop.db", workflows=[calls], activities=[hangs], resources={Pool: pool})
    await engine.__aenter__()
    await engine.client.start(calls.bind())
    await began.wait()
    threads = {thread for thread in threading.enumerate() if thread.name.startswith("derecho-sqlite")}
    stopping = asyncio.create_task(engine._stop())
    await eventually(lambda: engine.activities.draining)
    await asyncio.sleep(0.01)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    assert Pool.opened == 0
    assert threads
    assert not any(thread.is_alive() for thread in threads)
    [attempt] = [task for task in asyncio.all_tasks() if "ActivityWorker._attempt" in repr(task)]
    attempt.cancel()
    await attempt  # what ends after that has nowhere to go, and is no error


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
async def test_a_signal_tells_all_engines_of_the_process_and_its_handlers_come_back() -> None:
    told: list[int] = []
    usual = {number: signal.signal(number, lambda number, _: told.append(number)) for number in TOLD_BY}
    try:
        for number in TOLD_BY:
            engines = [engine_of(MemoryStore(), order, work) for _ in range(2)]
            runs = [asyncio.create_task(engine.run()) for engine in engines]
            assert await eventually(lambda engines=engines: all(engine._tasks for engine in engines))
            signal.raise_signal(number)
            await asyncio.wait_for(asyncio.gather(*runs), 30)
            assert told == []
            signal.raise_signal(number)
            assert told == [number]
            told.clear()
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


TOLD_BY = (signal.SIGINT, signal.SIGTERM)
