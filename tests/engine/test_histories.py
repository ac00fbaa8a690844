"""Runs that wake together are read together, a few at a time, and one that cannot be read keeps nobody waiting."""

import asyncio
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

import derecho
from derecho import Context, Engine, Store
from derecho.engine.histories import Histories
from derecho.errors import StoreError, StoreUnavailable
from derecho.journal.wire import HistoryRow
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually
from tests.support.wrapped import wrapped

Found = dict[str, list[HistoryRow]]
Load = Callable[[Collection[str]], Any]


@derecho.workflow
async def sleeper(ctx: Context, number: int) -> int:
    await ctx.sleep(60)
    return number


async def fall_asleep(store: Store, clock: StandingClock, count: int) -> list[str]:
    """The run ids of so many sleepers whose time has come, and no engine."""
    async with engine_of(store, sleeper) as engine:
        handles = await engine.client.start_many([(f"w{n}", sleeper.bind(n)) for n in range(count)])
    clock.advance(60)
    return [handle.run_id for handle in handles]


async def wake(engine: Engine, numbers: Collection[int]) -> None:
    handles = [(n, engine.client.get(sleeper, f"w{n}")) for n in numbers]
    assert [await handle.result(timeout=30) for _, handle in handles] == [n for n, _ in handles]


async def test_runs_that_wake_together_are_read_together(store: Store, clock: StandingClock) -> None:
    run_ids = await fall_asleep(store, clock, 120)
    reads: list[list[str]] = []

    async def load(original: Load, run_ids: Collection[str]) -> Found:
        reads.append(list(run_ids))
        return cast(Found, await original(run_ids))

    async with engine_of(wrapped(store, load=load), sleeper) as engine:
        await wake(engine, range(120))
    assert sorted(run_id for read in reads for run_id in read) == sorted(run_ids)
    assert len(reads) <= 12


@pytest.mark.parametrize("error", [StoreError("this page is damaged"), StoreUnavailable("this took too long")])
async def test_a_history_that_cannot_be_read_keeps_nobody_waiting(
    store: Store, clock: StandingClock, error: StoreError
) -> None:
    run_ids = await fall_asleep(store, clock, 20)
    failed: list[list[str]] = []
    is_repaired = False

    async def load(original: Load, wanted: Collection[str]) -> Found:
        if run_ids[7] in wanted and not is_repaired:
            failed.append(list(wanted))
            raise error
        return cast(Found, await original(wanted))

    async with engine_of(wrapped(store, load=load), sleeper) as engine:
        await wake(engine, [n for n in range(20) if n != 7])
        await eventually(lambda: failed[-1] == [run_ids[7]])
        is_repaired = True
        clock.advance(60)  # a damaged page has blocked the run, and it is tried again later
        await wake(engine, [7])
    assert len(failed[0]) > 1, "it was read with its neighbours first"


async def test_a_damaged_history_blocks_only_its_own_run(store: Store, clock: StandingClock) -> None:
    run_ids = await fall_asleep(store, clock, 20)

    async def load(original: Load, wanted: Collection[str]) -> Found:
        found = cast(Found, await original(wanted))
        damaged = [replace(row, data=row.data + " ") for row in found.get(run_ids[7], ())]
        return {**found, run_ids[7]: damaged} if damaged else found

    async def is_blocked() -> bool:
        row = await store.get_run(run_ids[7])
        return row is not None and row.status == "blocked"

    async with engine_of(wrapped(store, load=load), sleeper) as engine:
        await wake(engine, [n for n in range(20) if n != 7])
        await eventually(is_blocked)
    clock.advance(60)
    async with engine_of(store, sleeper) as engine:
        await wake(engine, [7])


async def batches(*events: int, held: bool = False) -> list[list[str]]:
    """What is read together when the histories of runs 0, 1, 2 … with so many events are asked for at once."""
    reads: list[list[str]] = []
    tasks = []

    async def load(run_ids: Collection[str]) -> Found:
        reads.append(list(run_ids))
        if held and "0" in run_ids:
            await asyncio.Event().wait()
        return {run_id: [] for run_id in run_ids}

    engine: Any = SimpleNamespace(store=SimpleNamespace(load=load))
    histories = Histories(engine, lambda work: tasks.append(asyncio.create_task(work)))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        asked = [group.create_task(histories.load(str(number), count)) for number, count in enumerate(events)]
        await asyncio.wait(asked[1:] if held else asked)
        for task in (*asked, *tasks):
            task.cancel()
    return reads


async def test_a_read_holds_few_long_histories() -> None:
    assert await batches(400, 400, 400, 400, 400) == [["0", "1"], ["2", "3"], ["4"]]
    assert await batches(3, 30_000, 3, 3) == [["0"], ["1"], ["2", "3"]]


async def test_a_read_holds_few_histories_however_short_they_are() -> None:
    assert [len(read) for read in await batches(*[3] * 120)] == [50, 50, 20]


async def test_others_are_read_while_one_read_takes_long() -> None:
    assert await batches(30_000, 3, 3, held=True) == [["0"], ["1", "2"]]
