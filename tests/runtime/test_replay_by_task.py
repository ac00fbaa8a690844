"""Replay goes task by task: code sees exactly the facts and the time that each recorded task had."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from derecho import Context, NondeterminismError, Selector, Signal, activity, workflow
from tests.runtime.conftest import DriveOf
from tests.support.drive import names

add = Signal("add", int)


@activity
async def fetch(key: str) -> str:
    return key


@activity
async def store(value: str) -> None: ...


@workflow
async def first_of_two(ctx: Context) -> str:
    found = fetch.execute(ctx, "slow")
    winner = await (
        Selector[str]()
        .add(found, lambda value: f"found {value}")
        .add(ctx.new_timer(60), lambda _: "timed out")
        .select(ctx)
    )
    await store.execute(ctx, winner)
    return winner


def test_a_fact_that_came_later_does_not_win_on_replay(drive: DriveOf) -> None:
    run = drive(first_of_two)
    assert names(run.begin()) == ["fetch", "timer 60"]
    assert names(run.task(run.fired(), after=60)) == ["store"]
    run.task(run.completed("fetch", "late"), after=1)
    run.task(run.completed("store"), after=1)
    assert run.result == "timed out"
    run.check()


def test_facts_of_one_task_are_seen_in_their_order(drive: DriveOf) -> None:
    for facts, winner in [(("fetch", "timer"), "found x"), (("timer", "fetch"), "found x")]:
        run = drive(first_of_two)
        run.begin()
        made = {"fetch": lambda run=run: run.completed("fetch", "x"), "timer": lambda run=run: run.fired()}
        run.task(*(made[name]() for name in facts), after=60)  # ties go to the case added first
        run.task(run.completed("store"))
        assert run.result == winner
        run.check()


@workflow
async def as_they_come(ctx: Context) -> list[str]:
    seen: list[str] = []

    async def note(ctx: Context, name: str, what: Awaitable[Any]) -> None:
        await what
        seen.append(name)

    signal = ctx.signals(add).receive_future()
    waiting: dict[str, Awaitable[Any]] = {
        "fetch": fetch.execute(ctx, "x"),
        "timer": ctx.new_timer(60),
        "signal": signal,
    }
    await asyncio.gather(*(ctx.go(note, name, what) for name, what in waiting.items()))
    return seen


@pytest.mark.parametrize("order", list(permutations(["fetch", "timer", "signal"])), ids=" ".join)
def test_facts_of_all_kinds_wake_fibers_in_the_order_of_the_history(drive: DriveOf, order: tuple[str, ...]) -> None:
    run = drive(as_they_come)
    run.begin()
    facts = {"fetch": run.completed("fetch", "x"), "timer": run.fired(), "signal": run.signal(add, 1)}
    run.task(*(facts[name] for name in order), after=60)
    assert run.result == list(order)
    run.check()


@workflow
async def clocks(ctx: Context) -> list[str]:
    loop = asyncio.get_running_loop()
    seen = [f"{ctx.now():%H:%M:%S} {loop.time():g}"]
    await ctx.sleep(timedelta(hours=2))
    seen.append(f"{ctx.now():%H:%M:%S} {loop.time():g}")
    await fetch.execute(ctx, "x")
    seen.append(f"{ctx.now():%H:%M:%S} {loop.time():g}")
    return seen


def test_every_line_sees_the_time_of_its_own_task_on_replay_too(drive: DriveOf) -> None:
    run = drive(clocks)
    run.begin()
    run.task(run.fired(), after=7_200)
    run.task(run.completed("fetch", "x"), after=0.5)
    assert run.result == ["22:13:20 0", "00:13:20 7200", "00:13:20 7200.5"]
    run.check()


def test_time_stands_still_while_code_runs_and_never_goes_back(drive: DriveOf) -> None:
    @workflow
    async def looks(ctx: Context) -> list[bool]:
        one = ctx.now()
        still = ctx.now() == one
        await ctx.sleep(1)
        return [still, ctx.now() >= one]

    run = drive(looks)
    run.begin()
    run.task(run.fired(), after=-3_600)
    assert run.result == [True, True]


@workflow
async def in_batches(ctx: Context) -> list[list[int]]:
    channel, batches = ctx.signals(add), []
    for _ in range(2):
        batch = [await channel.receive()]
        while (value := channel.try_receive()) is not None:
            batch.append(value)
        batches.append(batch)
        await store.execute(ctx, str(batch))
    return batches


def test_signals_that_came_later_are_not_there_yet_on_replay(drive: DriveOf) -> None:
    run = drive(in_batches)
    run.begin(run.signal(add, 1), run.signal(add, 2))
    run.task(run.signal(add, 3))
    run.task(run.signal(add, 4))
    run.task(run.completed("store"))
    run.task(run.signal(add, 5), run.completed("store", nth=2))
    assert run.result == [[1, 2], [3, 4]]
    run.check()


def test_the_whole_history_is_replayed_not_only_its_first_task(drive: DriveOf) -> None:
    @workflow("first_of_two")
    async def differs_at_the_end(ctx: Context) -> str:
        waiting: list[asyncio.Future[Any]] = [fetch.execute(ctx, "slow"), ctx.new_timer(60)]
        await asyncio.wait(waiting, return_when="FIRST_COMPLETED")
        await fetch.execute(ctx, "instead of store")
        return "timed out"

    run = drive(first_of_two)
    run.begin()
    run.task(run.fired(), after=60)
    with pytest.raises(NondeterminismError, match="store"):
        run.replay(differs_at_the_end)


def test_an_open_run_is_checked_as_far_as_it_goes(drive: DriveOf) -> None:
    run = drive(first_of_two)
    run.begin()
    run.check()
    run.replay()
    with pytest.raises(NondeterminismError, match=r"timer|activity_scheduled"):
        run.replay(clocks)
