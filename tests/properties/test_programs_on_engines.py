"""Random programs on real engines: one fault or death at a random commit, or every run evicted after each turn."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

import derecho
from derecho import Client, Engine, MemoryStore, StoreError, WorkflowNotFound
from derecho.clock import SECOND
from derecho.testing.clock import VirtualClock
from derecho.testing.faults import MODES, FaultyStore, Mode, abandon
from tests.properties.language import SIGNALS, leaf, program, undo, work
from tests.properties.test_programs import PROGRAMS, programs
from tests.support.audits import assert_sound

SAMPLE = max(8, PROGRAMS // 20)
fired: list[Mode] = []


def new_engine(store: Any, cache_size: int) -> Engine:
    return Engine(
        store,
        workflows=[program, leaf],
        activities=[work, undo],
        lease=1e6,
        shutdown_timeout=1,
        cache_size=cache_size,
    )


async def live(body: list[Any], mode: Mode, at: int, cache_size: int) -> None:
    clock = VirtualClock()
    inner = MemoryStore(clock=clock)
    faulty = FaultyStore(inner, "commit", at, mode)
    client = Client(inner)
    handle = await client.start(program.bind(body, []), id="p")
    engine = new_engine(faulty, cache_size)
    await engine.__aenter__()
    feeding = asyncio.create_task(feed(client, clock))
    died = asyncio.create_task(faulty.died.wait())
    result = asyncio.create_task(handle.result())
    try:
        await asyncio.wait({died, result}, return_when=asyncio.FIRST_COMPLETED, timeout=30)
        if faulty.died.is_set():
            await abandon(engine)
            clock.advance(2_000_000 * SECOND)
            async with new_engine(inner, cache_size):
                await asyncio.wait_for(result, 30)
        else:
            await asyncio.wait_for(result, 30)
            await engine.__aexit__(None, None, None)
    finally:
        for task in (feeding, died, result):
            task.cancel()
        await asyncio.gather(feeding, died, result, return_exceptions=True)
        await client.close()
    fired.extend([mode] * faulty.fired)
    async for run in client.list(workflow_type="program"):
        derecho.replay(program, await client.get(program, "p", run.run_id).history())
    await assert_sound(inner)


async def feed(client: Client, clock: VirtualClock) -> None:
    """Time goes on, and signals come."""
    dice = random.Random(3)
    while True:
        await asyncio.sleep(0.004)
        clock.advance(SECOND)
        with suppress(WorkflowNotFound, StoreError):
            await client.get(program, "p").signal(SIGNALS[dice.choice(sorted(SIGNALS))], 1)


@seed(20261123)
@settings(max_examples=SAMPLE, phases=[Phase.generate])
@given(programs, st.sampled_from(MODES), st.integers(2, 9), st.sampled_from([0, 1000]))
def check_on_an_engine(body: list[Any], mode: Mode, at: int, cache_size: int) -> None:
    asyncio.run(live(body, mode, at, cache_size))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of engines that were abandoned
def test_a_program_ends_and_replays_whatever_commit_fails() -> None:
    check_on_an_engine()
    print(f"{SAMPLE} programs on engines, faults fired: {len(fired)}")
    assert len(fired) >= SAMPLE // 2, f"only {len(fired)} faults fired"
