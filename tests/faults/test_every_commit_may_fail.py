"""Each commit of a run fails in each of four ways; the outcome is always that of the run without faults."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

import derecho
from derecho import Context, Engine, MemoryStore, Signal
from derecho.clock import SECOND
from derecho.testing.clock import VirtualClock
from derecho.testing.faults import MODES, FaultyStore, Mode, abandon
from tests.support.audits import assert_sound

GO = Signal("go", str)


@dataclass
class Ledger:
    """What activities did, seen from outside: begun attempts by idempotency key."""

    begun: Counter[str] = field(default_factory=Counter)
    finished: set[str] = field(default_factory=set)
    after_outcome: list[str] = field(default_factory=list)
    store: Any = None


@derecho.activity
async def act(name: str) -> str:
    activity = derecho.current_activity()
    ledger = activity.resource(Ledger)
    key = activity.idempotency_key
    ledger.begun[key] += 1
    for row in (await ledger.store.load([activity.run_id]))[activity.run_id]:
        if f'"activity_completed","activity":{key.rpartition(":")[2]},' in row.data:
            ledger.after_outcome.append(key)
    ledger.finished.add(key)
    return name.upper()


@derecho.workflow
async def journey(ctx: Context, n: int) -> list[str]:
    seen = [await act.execute(ctx, "a")]
    seen += await asyncio.gather(*(act.execute(ctx, f"b{i}") for i in range(n)))
    await ctx.sleep(30)

    async def local(text: str) -> str:
        return text + "!"

    seen.append(await ctx.step("local", local, "step"))
    seen.append(await ctx.signals(GO).receive())
    seen.append(await act.execute(ctx, "c"))
    seen.append(await ctx.child(leaf.bind("d")))
    return seen


@derecho.workflow
async def leaf(ctx: Context, name: str) -> str:
    return await act.execute(ctx, name)


EXPECTED = ["A", "B0", "B1", "B2", "step!", "gone", "C", "D"]


def new_engine(store: Any, ledger: Ledger, cache_size: int = 1000) -> Engine:
    return Engine(
        store,
        workflows=[journey, leaf],
        activities=[act],
        resources={Ledger: ledger},
        lease=1e6,
        shutdown_timeout=1,
        cache_size=cache_size,
    )


async def live(mode: Mode, at: int, method: str = "commit") -> tuple[FaultyStore, Ledger]:
    """One run with one fault; a dead engine is replaced by a new one after its lease."""
    clock = VirtualClock()
    inner = MemoryStore(clock=clock)
    ledger = Ledger(store=inner)
    faulty = FaultyStore(inner, method, at, mode)
    client = derecho.Client(inner)
    await client.start(journey.bind(3), id="j", signals=[(GO, "gone")])
    first = new_engine(faulty, ledger, cache_size=0 if method == "load" else 1000)
    await asyncio.wait_for(_start(first, faulty), 10)
    ticking = asyncio.create_task(_tick(clock))
    died = asyncio.create_task(faulty.died.wait())
    result = asyncio.create_task(client.get(journey, "j").result())
    try:
        await asyncio.wait({died, result}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        if faulty.died.is_set():
            await abandon(first)
            clock.advance(2_000_000 * SECOND)
            async with new_engine(inner, ledger):
                assert await asyncio.wait_for(result, 20) == EXPECTED
        else:
            assert await asyncio.wait_for(result, 20) == EXPECTED
            await first.__aexit__(None, None, None)
    finally:
        for task in (ticking, died, result):
            task.cancel()
        await asyncio.gather(ticking, died, result, return_exceptions=True)
        await client.close()
    history = await client.get(journey, "j").history()
    derecho.replay(journey, history)
    outcomes = Counter(event["activity"] for event in history if event["type"] == "activity_completed")
    assert set(outcomes.values()) == {1}
    assert ledger.after_outcome == []
    await assert_sound(inner)
    return faulty, ledger


async def _start(engine: Engine, faulty: FaultyStore) -> None:
    starting = asyncio.create_task(engine.__aenter__())
    dying = asyncio.create_task(faulty.died.wait())
    await asyncio.wait({starting, dying}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
    dying.cancel()
    await asyncio.gather(starting, dying, return_exceptions=True)


async def _tick(clock: VirtualClock) -> None:
    while True:
        await asyncio.sleep(0.005)
        clock.advance(SECOND)


@pytest.mark.parametrize("mode", MODES)
async def test_a_fault_at_any_commit_changes_no_outcome(mode: Mode) -> None:
    fired, attempts, at = 0, 0, 1
    while True:
        at += 1  # the first commit registers the engine; before it there is nothing to lose
        faulty, ledger = await live(mode, at)
        if not faulty.fired:
            break
        fired += faulty.fired
        attempts += sum(ledger.begun.values())
        most = 1 if mode.startswith("error") else 2  # an answer that is lost costs no attempt, a death one
        assert all(count <= most for count in ledger.begun.values()), ledger.begun
    assert fired >= 12, f"only {fired} faults fired"


@pytest.mark.parametrize("method", ["claim_runs", "claim_activities", "due_timers", "overdue", "load"])
@pytest.mark.parametrize("mode", ["error_before", "error_after"])
async def test_a_fault_at_any_look_or_claim_changes_no_outcome(mode: Mode, method: str) -> None:
    fired = 0
    for at in (1, 2, 3):
        faulty, _ = await live(mode, at, method)
        fired += faulty.fired
    assert fired >= 1, f"{method} was never called"
