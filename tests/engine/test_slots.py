"""Slots: never more attempts at once than there are, and what was promised beyond them is begun soon or given back."""

import asyncio
from collections import Counter
from typing import Any

import pytest

import derecho
from derecho import Context, Engine, Store
from derecho.engine.slots import PATIENCE, Slots
from derecho.journal.changes import RetryActivity, ScheduleActivity
from tests.support.world import engine_of, eventually
from tests.support.wrapped import wrapped


class Attempts:
    """What activities of this name did: how many ran at once, and which attempt each was."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.numbers: Counter[int] = Counter()
        self.hold = asyncio.Event()
        self.hold.set()

    async def one(self) -> None:
        self.numbers[derecho.current_activity().attempt] += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await self.hold.wait()
        self.running -= 1


@derecho.activity
async def counted() -> None:
    await derecho.current_activity().resource(Attempts).one()


@derecho.workflow
async def in_sequence(ctx: Context, count: int) -> int:
    for _ in range(count):
        await counted.execute(ctx)
    return count


@derecho.workflow
async def at_once(ctx: Context, count: int) -> int:
    return len(await asyncio.gather(*(counted.execute(ctx) for _ in range(count))))


def engine_with(store: Store, attempts: Attempts, slots: int = 3) -> Engine:
    return engine_of(
        store, in_sequence, at_once, counted, resources={Attempts: attempts}, max_concurrent_activities=slots
    )


def held_up(store: Store, seen: list[int]) -> Store:
    """A store in whose `seen` the activities are counted that were handed back unbegun."""

    async def commit(original: Any, transitions: Any) -> Any:
        seen.extend(change.attempt for each in transitions for change in each if isinstance(change, RetryActivity))
        return await original(transitions)

    return wrapped(store, commit=commit)


async def brisk(engine: Engine) -> None:
    """Let the engine see that attempts are short, so that it promises more than it has slots."""
    assert await engine.client.run(in_sequence.bind(150)) == 150
    assert engine.activities.slots.room(in_process=False) > 3


async def test_short_attempts_are_promised_beyond_the_slots_and_never_run_beyond_them(store: Store) -> None:
    attempts, back = Attempts(), list[int]()
    async with engine_with(held_up(store, back), attempts) as engine:
        await brisk(engine)
        taken: list[int] = []
        reserve = engine.activities.reserve

        def counting(scheduled: Any) -> Any:
            reservation = reserve(scheduled)
            taken.append(sum(row.claim is not None for row in reservation.rows))
            return reservation

        engine.activities.reserve = counting  # type: ignore[method-assign]  # to see what a turn claims at once
        assert await engine.client.run(at_once.bind(20)) == 20
        assert max(taken) > 3
    assert attempts.most <= 3
    assert attempts.numbers == {1: 170}


async def test_whoever_waits_in_line_too_long_goes_back_unbegun_and_runs_later(store: Store) -> None:
    attempts, back = Attempts(), list[int]()
    async with engine_with(held_up(store, back), attempts) as engine:
        await brisk(engine)
        attempts.hold.clear()
        handle = await engine.client.start(at_once.bind(12))
        await eventually(lambda: asyncio.sleep(0, len(back) >= 9 and attempts.running == 3))
        assert engine.activities.slots.room(in_process=False) == 0
        attempts.hold.set()
        assert await handle.result(timeout=20) == 12
    assert attempts.most == 3
    assert set(back) == {1}, "it goes back as the attempt that it was"
    assert attempts.numbers == {1: 162}, "an attempt that never began is not counted"


async def test_another_engine_takes_what_goes_back(store: Store) -> None:
    busy, idle = Attempts(), Attempts()
    async with engine_with(store, busy) as engine:
        await brisk(engine)
        busy.hold.clear()
        handle = await engine.client.start(at_once.bind(12))
        await eventually(lambda: asyncio.sleep(0, busy.running == 3))
        async with engine_with(store, idle):
            await eventually(lambda: asyncio.sleep(0, idle.numbers.total() == 9))
            busy.hold.set()
            assert await handle.result(timeout=20) == 12
    assert (busy.numbers, idle.numbers) == ({1: 153}, {1: 9})


async def test_an_engine_that_stops_gives_back_who_waits_in_line_at_once(store: Store) -> None:
    attempts = Attempts()
    async with engine_with(store, attempts) as engine:
        await brisk(engine)
        attempts.hold.clear()
        handle = await engine.client.start(at_once.bind(12))
        await eventually(lambda: asyncio.sleep(0, attempts.running == 3))
        stopping = asyncio.create_task(engine._stop())
        await eventually(lambda: is_free(store, handle.run_id, 9))
        attempts.hold.set()
        await stopping
    assert attempts.numbers == {1: 153}


async def is_free(store: Store, run_id: str, count: int) -> bool:
    rows = (await store.pending(run_id)).activities
    return sum(row.claim is None and row.attempt == 1 for row in rows) == count


async def test_a_run_that_is_terminated_takes_those_in_line_along(store: Store) -> None:
    attempts = Attempts()
    async with engine_with(store, attempts) as engine:
        await brisk(engine)
        attempts.hold.clear()
        handle = await engine.client.start(at_once.bind(12))
        await eventually(lambda: asyncio.sleep(0, attempts.running == 3))
        await handle.terminate()
        attempts.hold.set()
        await eventually(lambda: asyncio.sleep(0, not engine.activities.running()))
        assert await engine.client.run(at_once.bind(3)) == 3
        assert engine.activities.slots.room(in_process=False) >= 3
    assert attempts.numbers == {1: 156}


@pytest.mark.parametrize("total", [1, 3, 100, 1_000])
def test_more_is_promised_the_shorter_attempts_are(total: int) -> None:
    slots = Slots(total, processes=1)
    slots.take(total, in_process=False)
    assert slots.room(in_process=False) == 0, "nothing is known yet"
    for seconds, times in ((0.0, 20), (PATIENCE / 2, 2), (10.0, 0), (PATIENCE / 2, 2)):
        for _ in range(300):
            assert slots.enter()
            slots.leave(seconds)
        assert abs(slots.room(in_process=False) - times * total) <= 1
    slots.slow_down()
    assert slots.room(in_process=False) == 0


@derecho.workflow
async def of_each_kind(ctx: Context) -> None:
    once = ctx.execute(counted.bind(), retry=derecho.RetryPolicy(max_attempts=1))
    await asyncio.gather(once, ctx.execute(counted.bind()))


async def test_an_activity_with_one_attempt_is_promised_no_slot_that_is_not_free(store: Store) -> None:
    """If the process died before it began, its only attempt would be gone."""
    attempts, claimed = Attempts(), dict[int, bool]()
    attempts.hold.clear()

    async def commit(original: Any, transitions: Any) -> Any:
        for change in (change for transition in transitions for change in transition):
            if isinstance(change, ScheduleActivity):
                claimed[change.row.activity] = change.row.claim is not None
        return await original(transitions)

    engine = engine_of(
        wrapped(store, commit=commit),
        in_sequence,
        of_each_kind,
        counted,
        resources={Attempts: attempts},
        max_concurrent_activities=1,
    )
    async with engine:
        first = await engine.client.start(in_sequence.bind(1))
        await eventually(lambda: attempts.running == 1)
        claimed.clear()
        engine.activities.slots._seconds = PATIENCE / 4
        second = await engine.client.start(of_each_kind.bind())
        await eventually(lambda: len(claimed) == 2)
        assert [claimed[activity] for activity in sorted(claimed)] == [False, True]
        attempts.hold.set()
        for handle in (first, second):
            await handle.result(timeout=20)


def test_attempts_in_child_processes_are_never_promised_beyond_the_slots() -> None:
    slots = Slots(total=10, processes=2)
    for _ in range(300):
        slots.enter()
        slots.leave(0.0)
    slots.take(2, in_process=True)
    assert slots.room(in_process=True) == 0
    assert slots.room(in_process=False) > 8


@derecho.activity(retry=derecho.RetryPolicy(initial_interval=0))
async def fails_once() -> int:
    if derecho.current_activity().attempt == 1:
        raise ConnectionError("later")
    return derecho.current_activity().attempt


@derecho.workflow
async def for_ever(ctx: Context) -> None:
    while True:
        await pausing.execute(ctx)


@derecho.activity
async def pausing() -> None:
    await asyncio.sleep(0.002)


@derecho.workflow
async def retrying(ctx: Context) -> int:
    return await fails_once.execute(ctx)


async def test_warm_runs_do_not_keep_an_engine_from_what_lies_in_the_store(store: Store) -> None:
    """They always want the next slot, in the commit that schedules it; a retry can only be claimed."""
    engine = engine_of(store, for_ever, retrying, pausing, fails_once, max_concurrent_activities=3)
    async with engine:
        busy = [await engine.client.start(for_ever.bind()) for _ in range(12)]
        await eventually(lambda: all_have(store, [run.run_id for run in busy], 5))
        assert await (await engine.client.start(retrying.bind())).result(timeout=20) == 2
        for run in busy:
            await run.terminate()


async def all_have(store: Store, run_ids: list[str], tasks: int) -> bool:
    rows = [await store.get_run(run_id) for run_id in run_ids]
    return all(row is not None and row.tasks >= tasks for row in rows)
