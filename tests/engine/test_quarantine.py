"""A run whose code kills the process is set aside after three deaths, and goes on when somebody says so."""

import asyncio

import pytest

import derecho
from derecho import Context, Engine, Handle, MemoryStore, Signal, Store
from derecho.clock import SECOND
from derecho.journal.changes import BuryWorker, RegisterWorker
from derecho.journal.model import WorkerRow
from tests.support.clocks import StandingClock
from tests.support.world import eventually

GO = Signal("go", str)


@derecho.workflow
async def suspect(ctx: Context) -> str:
    return "innocent"


async def kill_workers(store: Store, clock: StandingClock, deaths: int) -> None:
    """Let this many workers claim the run and die with it."""
    for number in range(deaths):
        worker = f"worker-{number}"
        await store.commit([(RegisterWorker(WorkerRow(worker, worker, store.now() + SECOND, ["workflow:suspect"])),)])
        claimed = (await store.claim_runs(worker, [f"claim-{number}"], ["suspect"])).rows
        assert [item.run.crashes for item in claimed] == [number]
        clock.advance(2)
        await store.commit([(BuryWorker(worker),)])


async def blocked_reason(handle: Handle[str]) -> str:
    return (await handle.describe()).blocked_reason or ""


@pytest.mark.parametrize("deaths", [1, 2])
async def test_a_run_is_tried_again_after_two_deaths(clock: StandingClock, deaths: int) -> None:
    store = MemoryStore(clock=clock)
    await derecho.Client(store).start(suspect.bind(), id="run-1")
    await kill_workers(store, clock, deaths)
    async with Engine(store, workflows=[suspect]) as engine:
        assert await engine.client.get(suspect, "run-1").result() == "innocent"


async def test_many_suspects_follow_each_other_at_once_not_at_each_poll(clock: StandingClock) -> None:
    store, ids = MemoryStore(clock=clock), [f"run-{number}" for number in range(20)]
    await derecho.Client(store).start_many([(workflow_id, suspect.bind()) for workflow_id in ids])
    await store.commit([(RegisterWorker(WorkerRow("worker", "worker", store.now() + SECOND, ["workflow:suspect"])),)])
    assert len((await store.claim_runs("worker", [f"claim-{number}" for number in range(20)], ["suspect"])).rows) == 20
    clock.advance(2)
    await store.commit([(BuryWorker("worker"),)])
    async with asyncio.timeout(5), Engine(store, workflows=[suspect]) as engine:  # at each poll it would take 20 s
        for workflow_id in ids:
            assert await engine.client.get(suspect, workflow_id).result() == "innocent"


async def test_after_three_deaths_it_is_set_aside_until_a_signal_comes(clock: StandingClock) -> None:
    store = MemoryStore(clock=clock)
    await derecho.Client(store).start(suspect.bind(), id="run-1")
    await kill_workers(store, clock, 3)
    async with Engine(store, workflows=[suspect]) as engine:
        handle = engine.client.get(suspect, "run-1")

        reason: str = await eventually(lambda: blocked_reason(handle))
        assert reason.startswith("quarantined: 3 worker processes died while they held this run")
        assert len(await handle.history()) == 0, "its code was not run again"
        await handle.signal(GO, "the fix is deployed")
        assert await handle.result() == "innocent"
