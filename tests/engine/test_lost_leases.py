"""What an engine claimed on the way of a commit is not lost when the answer comes late, or not at all."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import derecho
from derecho import Context, Signal, Store
from derecho.errors import StoreUnavailable
from derecho.journal.changes import (
    Conflict,
    CreateRun,
    Deliver,
    RenewWorker,
    RetireWorker,
    ScheduleActivity,
    Transition,
)
from derecho.journal.store import Taken
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually
from tests.support.wrapped import wrapped


@derecho.workflow
async def stepper(ctx: Context) -> str:
    async def small() -> str:
        await asyncio.sleep(0.05)
        return "done"

    return await ctx.step("small", small)


async def test_a_run_that_was_started_by_a_lost_lease_is_held_once_and_ends(store: Store) -> None:
    """The start comes to the store after the engine was buried: it creates nothing in the hands of the dead."""
    late = 0

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        nonlocal late
        created = [change.row for transition in transitions for change in transition if isinstance(change, CreateRun)]
        if not created or late:
            return await original(transitions)
        late += 1
        await store.commit([(RetireWorker(engine.incarnation),)])
        engine.lost_lease()
        results = await original(transitions)
        assert all(isinstance(result, Conflict) and result.reason == "claimed" for result in results), results
        assert await store.get_run(created[0].run_id) is None
        return results

    engine = engine_of(wrapped(store, commit=commit), stepper)
    async with engine:
        handles = [await engine.client.start(stepper.bind()) for _ in range(2)]
        assert [await handle.result(timeout=20) for handle in handles] == ["done", "done"]
    assert late == 1


WORD = Signal("word", str)


@derecho.workflow
async def listener(ctx: Context) -> list[str]:
    return [await ctx.signals(WORD).receive() for _ in range(2)]


def loses_an_answer(store: Store, lost: list[str], meanwhile: Callable[[], None] = lambda: None) -> Store:
    """A store that takes the first message with a claim, lets something happen, and does not tell that it took it."""

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        results = await original(transitions)
        claims = [c.claim for each in transitions for c in each if isinstance(c, Deliver) and c.claim is not None]
        if claims and not lost:
            lost.extend(claims)
            meanwhile()
            raise StoreUnavailable("done, but the answer was lost", outcome="unknown")
        return results

    return wrapped(store, commit=commit)


async def sleeps(store: Store, run_id: str) -> bool:
    row = await store.get_run(run_id)
    return row is not None and row.tasks == 1 and row.claim is None


async def test_a_run_whose_claim_came_with_a_lost_answer_hears_the_signal(store: Store) -> None:
    """The signal claims the warm run for the engine; sent again under its key, it is known and claims nothing."""
    lost: list[str] = []
    async with engine_of(loses_an_answer(store, lost), listener) as engine:
        handle = await engine.client.start(listener.bind())
        await eventually(lambda: sleeps(store, handle.run_id))
        await handle.signal(WORD, "one")
        await handle.signal(WORD, "two")
        assert await handle.result(timeout=20) == ["one", "two"]
    assert len(lost) == 1


async def test_a_claim_that_came_with_a_lost_answer_is_given_back_though_the_run_has_left_memory(store: Store) -> None:
    """The signal is for a workflow id, and when its fate is known, nothing in memory says which run has that."""
    lost: list[str] = []

    def evict_all() -> None:
        for run in engine.workflows.runs:
            engine.workflows.evict(run)

    engine = engine_of(loses_an_answer(store, lost, evict_all), listener)
    async with engine:
        started = await engine.client.start(listener.bind(), id="w")
        await eventually(lambda: sleeps(store, started.run_id))
        handle = engine.client.get(listener, "w")
        await handle.signal(WORD, "one")
        await handle.signal(WORD, "two")
        assert await handle.result(timeout=20) == ["one", "two"]
    assert len(lost) == 1


@derecho.activity(retry=derecho.RetryPolicy(initial_interval=1_000))
async def which() -> int:
    attempt = derecho.current_activity().attempt
    began.append(attempt)
    if attempt == 1:
        await asyncio.sleep(3_600)
    return attempt


@derecho.workflow
async def asking(ctx: Context) -> int:
    return await which.execute(ctx)


began: list[int] = []


async def test_an_attempt_that_had_begun_when_a_claim_got_no_answer_is_followed_by_the_next_one(store: Store) -> None:
    """The engine goes on under another name; the number of an attempt is used once all the same."""
    began.clear()
    lost = 0

    async def claim_runs(original: Any, *args: Any) -> Any:
        nonlocal lost
        claimed = await original(*args)
        if began and not lost:
            lost += 1
            raise StoreUnavailable("the answer was lost", outcome="unknown")
        return claimed

    async with engine_of(wrapped(store, claim_runs=claim_runs), asking, which) as engine:
        handle = await engine.client.start(asking.bind())
        await eventually(lambda: began)
        store.hint("runs")
        assert await handle.result(timeout=20) == 2
    assert (lost, began) == (1, [1, 2])


let_go = threading.Event()
pondering = threading.Event()


@derecho.activity(retry=derecho.RetryPolicy(initial_interval=1_000))
async def counted() -> int:
    began.append(derecho.current_activity().attempt)
    return 7


@derecho.workflow
async def ponders(ctx: Context) -> int:
    found = await counted.execute(ctx)
    pondering.set()
    let_go.wait(20)
    return found


async def test_a_result_that_is_on_its_way_when_a_claim_got_no_answer_counts(store: Store) -> None:
    """The turn that takes it is with the workflow thread: what the old name holds is not given back before."""
    began.clear()
    pondering.clear()
    let_go.clear()
    lost = 0

    async def claim_runs(original: Any, *args: Any) -> Any:
        nonlocal lost
        claimed = await original(*args)
        if pondering.is_set() and not lost:
            lost += 1
            raise StoreUnavailable("the answer was lost", outcome="unknown")
        return claimed

    async with engine_of(wrapped(store, claim_runs=claim_runs), ponders, counted, deadlock_timeout=None) as engine:
        old = engine.incarnation
        handle = await engine.client.start(ponders.bind())
        await eventually(pondering.is_set)
        store.hint("runs")
        await eventually(lambda: engine.incarnation != old)
        await engine.committer.flush()
        let_go.set()
        assert await handle.result(timeout=20) == 7
        await eventually(lambda: is_gone(store, old))
    assert (lost, began) == (1, [1])


@derecho.activity(retry=derecho.RetryPolicy(initial_interval=1_000))
async def takes_a_moment() -> None:
    began.append(derecho.current_activity().attempt)
    await asyncio.sleep(0.05)


@derecho.workflow
async def momentary(ctx: Context) -> None:
    await ctx.step("first", lambda: asyncio.sleep(0))
    await takes_a_moment.execute(ctx)


async def test_an_activity_that_was_scheduled_under_a_name_that_is_lost_begins_once(store: Store) -> None:
    began.clear()
    lost = 0

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        nonlocal lost
        results = await original(transitions)
        if not lost and any(isinstance(change, ScheduleActivity) for each in transitions for change in each):
            lost += 1
            engine.lost_lease()
        return results

    engine = engine_of(wrapped(store, commit=commit), momentary, takes_a_moment)
    async with engine:
        await engine.client.run(momentary.bind())
    assert (lost, began) == (1, [1])


@derecho.workflow
async def twice(ctx: Context) -> None:
    await asyncio.gather(takes_a_moment.execute(ctx), takes_a_moment.execute(ctx))


async def test_an_activity_that_was_claimed_under_a_name_that_is_lost_begins_once(store: Store) -> None:
    began.clear()
    lost = 0

    async def claim_activities(original: Any, *args: Any) -> Any:
        nonlocal lost
        claimed = await original(*args)
        if claimed.rows and not lost:
            lost += 1
            engine.lost_lease()
        return claimed

    # With one slot the second activity is not claimed in the commit that schedules it.
    stormy = wrapped(store, claim_activities=claim_activities)
    engine = engine_of(stormy, twice, takes_a_moment, max_concurrent_activities=1)
    async with engine:
        await (await engine.client.start(twice.bind())).result(timeout=20)
    assert (lost, began) == (1, [1, 1])


async def is_gone(store: Store, worker: str) -> bool:
    return all(row.worker != worker for row in await store.workers())


async def test_a_renewal_that_ends_with_its_loop_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    home, renewals = asyncio.get_running_loop(), list["asyncio.Task[Any] | None"]()

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        if isinstance(transitions[0][0], RenewWorker) and asyncio.get_running_loop() is home:
            renewals.append(asyncio.current_task())
            await asyncio.Event().wait()
        return await original(transitions)

    async with engine_of(wrapped(derecho.MemoryStore(), commit=commit), counted, lease=1.5) as engine:
        await eventually(lambda: renewals)
    for renewal in renewals:
        assert renewal is not None
        renewal.cancel()
    thread = engine.lease._thread
    assert thread is not None
    await asyncio.to_thread(thread.join)
    assert "could not be renewed" not in caplog.text


@derecho.activity(start_to_close=5, retry=derecho.RetryPolicy(initial_interval=0))
async def timed() -> int:
    began.append(derecho.current_activity().attempt)
    return began[-1]


@derecho.workflow
async def timing(ctx: Context) -> int:
    return await timed.execute(ctx)


async def test_an_attempt_whose_time_is_over_when_its_answer_comes_does_not_begin(
    store: Store, clock: StandingClock
) -> None:
    """Another engine may have judged it meanwhile, and the activity may have ended."""
    began.clear()
    late = 0

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        nonlocal late
        results = await original(transitions)
        if not late and any(isinstance(change, ScheduleActivity) for each in transitions for change in each):
            late += 1
            clock.advance(60)
        return results

    async def claim_activities(original: Any, *args: Any) -> Any:
        if late:
            return await original(*args)
        return Taken([], None)  # no slot is held for a question when the activity is scheduled

    slow = wrapped(store, commit=commit, claim_activities=claim_activities)
    async with engine_of(slow, timing, timed) as engine:
        assert await (await engine.client.start(timing.bind())).result(timeout=20) == 2
    assert (late, began) == (1, [2])
