"""Two engines on one store share the work; when one dies or loses touch, the other takes over."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

import derecho
from derecho import Client, Context, Engine, RetryPolicy, Signal, Store
from derecho.engine.turns import CROWD
from derecho.journal.changes import Advance, Deliver, ReleaseRun, Transition
from derecho.journal.events import ActivityScheduled, TimerFired
from derecho.journal.model import RunFilter
from derecho.journal.store import Taken
from derecho.journal.wire import decode_events
from derecho.testing.faults import abandon
from tests.support.clocks import StandingClock
from tests.support.world import FOR_EVER, engine_of, eventually
from tests.support.wrapped import Gate, wrapped

go = Signal("go", int)


class Log:
    """Which engine did what."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, str]] = []
        self.hold = asyncio.Event()
        self.hold.set()


class Name(str): ...


@derecho.activity(retry=RetryPolicy(initial_interval=0))
async def work(number: int) -> int:
    act = derecho.current_activity()
    act.resource(Log).attempts.append((act.resource(Name), act.idempotency_key))
    await act.resource(Log).hold.wait()
    return number


@derecho.workflow
async def order(ctx: Context, number: int, nap: float = 60) -> int:
    total = sum(await asyncio.gather(*(work.execute(ctx, number) for _ in range(3))))
    await ctx.sleep(nap)
    return total + await work.execute(ctx, number)


@derecho.workflow
async def sleeper(ctx: Context) -> str:
    await ctx.sleep(60)
    return "slept"


@pytest.fixture
def log() -> Log:
    return Log()


def engine(store: Store, name: str, log: Log, **options: object) -> Engine:
    return engine_of(store, order, sleeper, work, resources={Log: log, Name: Name(name)}, **options)


@asynccontextmanager
async def dead(engine: Engine, clock: StandingClock) -> AsyncIterator[None]:
    """Afterwards the engine is dead, and its lease has run out."""
    await engine.__aenter__()
    yield
    await abandon(engine)
    clock.advance(2 * FOR_EVER)


async def test_they_share_the_work_and_schedule_nothing_twice(store: Store, clock: StandingClock, log: Log) -> None:
    async with engine(store, "a", log), engine(store, "b", log), derecho.Client(store) as outside:
        handles = await outside.start_many([(f"w{n}", order.bind(n)) for n in range(40)])
        await eventually(lambda: len(log.attempts) == 120)
        ticking = asyncio.create_task(tick(clock))
        results = await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
        ticking.cancel()
    assert results == [4 * n for n in range(40)]
    assert set(Counter(log.attempts).values()) == {1}
    for handle in handles:
        events = [
            event for row in (await store.load([handle.run_id]))[handle.run_id] for event in decode_events(row.data)
        ]
        assert sum(isinstance(event, ActivityScheduled) for event in events) == 4
        assert sum(isinstance(event, TimerFired) for event in events) == 1


async def tick(clock: StandingClock) -> None:
    while True:
        await asyncio.sleep(0.002)
        clock.advance(5)


async def test_a_dead_engines_activities_are_attempted_again(store: Store, clock: StandingClock, log: Log) -> None:
    """No timeout is configured: the lease alone finds them."""
    log.hold.clear()
    first = engine(store, "first", log)
    async with dead(first, clock):
        handle = await first.client.start(order.bind(7), id="w")
        await eventually(lambda: len(log.attempts) == 3)
    log.hold.set()
    async with engine(store, "second", log) as second:
        await eventually(lambda: len(log.attempts) == 6)
        ticking = asyncio.create_task(tick(clock))
        assert await second.client.get(order, "w").result(timeout=20) == 28
        ticking.cancel()
    keys = Counter(key for _, key in log.attempts)
    assert sorted(keys.values()) == [1, 2, 2, 2]
    assert all(key.startswith(handle.run_id) for key in keys)


async def test_a_timer_fires_though_the_engine_that_looked_died(store: Store, clock: StandingClock, log: Log) -> None:
    gate = Gate()
    first = engine(gate.before(store), "first", log)
    async with dead(first, clock):
        handle = await first.client.start(sleeper.bind(), id="w")
        await eventually(lambda: has_timer(store, handle.run_id))
        gate.is_open = False  # what it looks at from now on, it can never commit
        clock.advance(60)
        await eventually(lambda: gate.waiting > 0)
    async with engine(store, "second", log) as second:
        assert await second.client.get(sleeper, "w").result(timeout=20) == "slept"


async def has_timer(store: Store, run_id: str) -> bool:
    return bool((await store.pending(run_id)).timers)


async def test_an_engine_that_was_paused_loses_nothing_and_does_nothing_twice(
    store: Store, clock: StandingClock, log: Log
) -> None:
    """Its lease runs out while it cannot speak; another one does its work; then it is heard again."""
    gate = Gate()
    async with engine(gate.before(store), "paused", log, lease=0.3) as paused:
        handle = await paused.client.start(order.bind(7), id="w")
        await eventually(lambda: has_timer(store, handle.run_id))
        gate.is_open = False
        clock.advance(60)
        async with engine(store, "other", log) as other:
            assert await other.client.get(order, "w").result(timeout=20) == 28
        gate.is_open = True
        assert await paused.client.run(order.bind(2, nap=0)) == 8
    assert set(Counter(key for _, key in log.attempts).values()) == {1}
    assert [name for name, _ in log.attempts].count("other") == 1
    events = [event for row in (await store.load([handle.run_id]))[handle.run_id] for event in decode_events(row.data)]
    assert sum(isinstance(event, TimerFired) for event in events) == 1


@derecho.workflow
async def stepping(ctx: Context) -> str:
    await ctx.step("pause", lambda: asyncio.sleep(0))
    return "done"


async def test_a_worker_whose_turn_is_refused_reads_the_run_again_and_goes_on(store: Store) -> None:
    refused = 0

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        nonlocal refused
        for change in [change for transition in transitions for change in transition]:
            if isinstance(change, Advance) and change.claim is not None and not refused:
                refused += 1  # somebody gives its claim back before it comes to the store
                await original([(ReleaseRun(change.run_id, change.claim),)])
        return await original(transitions)

    async with engine_of(wrapped(store, commit=commit), stepping) as alone:
        handle = await alone.client.start(stepping.bind())
        assert await handle.result(timeout=20) == "done"
    assert refused == 1


@derecho.activity
async def held() -> str:
    await derecho.current_activity().resource(Log).hold.wait()
    return "let go"


second_is_sent = threading.Event()


@derecho.workflow
async def two_words(ctx: Context) -> list[int | str]:
    ending, words = held.execute(ctx), ctx.signals(go)
    first = await words.receive()
    second_is_sent.wait(1)
    return [first, await words.receive(), await ending]


async def test_a_result_in_hand_does_not_wait_for_a_message_that_another_engine_has_read(
    store: Store, clock: StandingClock, log: Log
) -> None:
    log.hold.clear()
    second_is_sent.clear()
    held_up = 0

    async def commit(original: Any, transitions: Sequence[Transition]) -> Any:
        nonlocal held_up
        delivers = any(isinstance(change, Deliver) and change.claim is None for each in transitions for change in each)
        if delivers and not held_up:
            second_is_sent.set()
            while not alone.committer._queue:  # noqa: ASYNC110  # until the turn is decided, without this message
                await asyncio.sleep(0.001)
            held_up += 1
        return await original(transitions)

    async def claim_runs(original: Any, *args: Any) -> Any:
        return Taken([], None)  # it comes too late each time

    slow = wrapped(store, commit=commit, claim_runs=claim_runs)
    alone = engine_of(slow, two_words, held, resources={Log: log})
    async with alone:
        handle = await alone.client.start(two_words.bind(), id="w")
        await handle.signal(go, 1)
        await handle.signal(go, 2)
        assert held_up == 1
        await eventually(lambda: has_tasks(store, handle.run_id, 2))
        clock.advance(60)  # so that no store waits for the engine that has it warm
        async with engine_of(store, two_words) as other:
            await eventually(lambda: asyncio.sleep(0, other.workflows.runs.get(handle.run_id)))
            await eventually(lambda: has_tasks(store, handle.run_id, 3))
            log.hold.set()
            assert await other.client.get(two_words, "w").result(timeout=20) == [1, 2, "let go"]


async def has_tasks(store: Store, run_id: str, count: int) -> bool:
    row = await store.get_run(run_id)
    return row is not None and row.tasks == count and row.claim is None


async def test_an_attempt_of_an_engine_declared_dead_is_stopped_and_its_result_refused(
    store: Store, clock: StandingClock, log: Log
) -> None:
    log.hold.clear()
    gate = Gate()
    async with engine(gate.before(store), "paused", log) as paused:
        handle = await paused.client.start(order.bind(7), id="w")
        await eventually(lambda: len(log.attempts) == 3)
        gate.is_open = False
        clock.advance(2 * FOR_EVER)
        async with engine(store, "other", log) as other:
            await eventually(lambda: len(log.attempts) == 6)
            log.hold.set()
            ticking = asyncio.create_task(tick(clock))
            assert await other.client.get(order, "w").result(timeout=20) == 28
            gate.is_open = True
            ticking.cancel()
    events = [event for row in (await store.load([handle.run_id]))[handle.run_id] for event in decode_events(row.data)]
    assert sum(type(event).__name__ == "ActivityCompleted" for event in events) == 4


async def test_a_jump_of_the_clock_makes_no_engine_bury_another(store: Store, clock: StandingClock, log: Log) -> None:
    log.hold.clear()
    async with engine(store, "a", log, lease=10) as a, engine(store, "b", log, lease=10) as b:
        handles = [await one.client.start(order.bind(1, nap=0)) for one in (a, b) for _ in range(5)]
        await eventually(lambda: len(log.attempts) == 30)
        clock.advance(3_600)

        async def both_are_alive() -> bool:
            return {row.worker for row in await store.workers()} == {a.incarnation, b.incarnation}

        await eventually(both_are_alive)
        log.hold.set()
        assert await asyncio.gather(*(handle.result(timeout=20) for handle in handles)) == [4] * 10
    assert set(Counter(key for _, key in log.attempts).values()) == {1}


async def test_an_engine_with_much_to_do_leaves_runs_to_the_other(store: Store, log: Log) -> None:
    """Whoever came first would otherwise take all that wait, and the other would have nothing."""
    count, asked = 3 * CROWD, []

    async def claim_runs(original: Any, worker: str, claims: Sequence[str], *rest: Any) -> Any:
        asked.append(len(claims))
        waiting.append(first.workflows.turns.outstanding)
        return await original(worker, claims, *rest)

    waiting: list[int] = []
    await Client(store).start_many([(f"s{number}", sleeper.bind()) for number in range(count)])
    first = engine(wrapped(store, claim_runs=claim_runs), "first", log)
    async with first:
        await eventually(lambda: all_have_begun(store))
    assert max(asked) == CROWD
    assert max(waiting) < CROWD


async def all_have_begun(store: Store) -> bool:
    return all(row.tasks for row in await store.list_runs(RunFilter(limit=1_000)))
