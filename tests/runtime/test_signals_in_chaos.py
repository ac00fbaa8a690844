"""Fibers that receive, give up, race and are cancelled at random: each signal is seen once, in its order."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from derecho import Context, Selector, Signal, workflow
from derecho.journal import events as ev
from tests.runtime.conftest import DriveOf
from tests.support.drive import Drive

number = Signal("number", int)
LATE = -1


async def receive(ctx: Context, chance: random.Random) -> int:
    return await ctx.signals(number).receive()


async def try_receive(ctx: Context, chance: random.Random) -> int:
    value = ctx.signals(number).try_receive()
    return LATE if value is None else value


async def cancel(ctx: Context, chance: random.Random) -> int:
    """Begin to receive, and think better of it after a while or at once."""
    fiber = asyncio.create_task(ctx.signals(number).receive())
    for _ in range(chance.randrange(3)):
        await asyncio.sleep(0)
    if chance.randrange(2):
        await ctx.sleep(1)
    fiber.cancel()
    [found] = await asyncio.gather(fiber, return_exceptions=True)
    return found if isinstance(found, int) else LATE


async def race(ctx: Context, chance: random.Random) -> int:
    cases: list[tuple[asyncio.Future[Any], Callable[[Any], int]]] = [
        (ctx.signals(number).receive_future(), lambda n: n),
        (ctx.new_timer(1), lambda _: LATE),
    ]
    chance.shuffle(cases)
    selector = Selector[int]()
    for future, then in cases:
        selector.add(future, then)
    return await selector.select(ctx)


async def time_out(ctx: Context, chance: random.Random) -> int:
    try:
        return await asyncio.wait_for(ctx.signals(number).receive(), 1)
    except TimeoutError:
        return LATE


@workflow
async def chaos(ctx: Context, seed: int) -> list[int]:
    chance, seen = random.Random(seed), list[int]()
    while len(seen) < 25:
        way = chance.choice([receive, try_receive, cancel, race, time_out])
        found = await way(ctx, chance)
        if found == LATE:
            await ctx.sleep(1)
        else:
            seen.append(found)
    return seen


def pending_timers(run: Drive) -> list[ev.Fact]:
    over = {event.timer for event in run.events if isinstance(event, ev.TimerFired | ev.TimerCancelled)}
    return [
        ev.TimerFired(event_id, event.fire_at)
        for event_id, event in enumerate(run.events, 1)
        if isinstance(event, ev.TimerScheduled) and event_id not in over
    ]


@pytest.mark.parametrize("seed", range(40))
def test_no_signal_is_lost_doubled_or_overtaken(drive: DriveOf, seed: int) -> None:
    run, chance, sent = drive(chaos, seed), random.Random(-seed), 0
    run.begin()
    while not run.is_over:
        signals: list[ev.Fact] = [run.signal(number, sent + n) for n in range(chance.randrange(3))]
        sent += len(signals)
        fired = pending_timers(run)
        facts = signals + fired if chance.randrange(2) else fired + signals
        if facts:
            run.task(*facts, after=1)
    assert run.result == list(range(25))
    assert isinstance(run.outcome, ev.WorkflowCompleted)
    assert run.outcome.unread == sent - 25
    run.check()
