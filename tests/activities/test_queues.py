"""Queues route by name: a worker claims only what it has and serves, and what nobody serves is visible."""

import asyncio
from typing import Any

import derecho
from derecho import Context, Queue, Store
from tests.activities.kit import Probe, calling, engine, probe, quiet
from tests.support.world import eventually

GPU = Queue("gpu")


@derecho.activity
async def here() -> str:
    return f"{probe().notes[0]} ran it"


@derecho.activity(queue=GPU)
async def on_gpu() -> str:
    return f"{probe().notes[0]} ran it"


def named(name: str) -> Probe:
    seen = Probe()
    seen.notes.append(name)
    return seen


async def test_work_goes_where_its_queue_is_served(store: Store) -> None:
    @derecho.workflow
    async def three(ctx: Context) -> list[str]:
        return [
            await here.execute(ctx),
            await on_gpu.execute(ctx),
            await ctx.execute(here.bind(), queue=GPU),
        ]

    activities = [here, on_gpu]
    async with (
        engine(store, three, *activities, probe=named("plain"), queues=[Queue("default")]) as running,
        engine(store, three, *activities, probe=named("gpu"), queues=[GPU]),
    ):
        assert await running.client.run(three.bind()) == ["plain ran it", "gpu ran it", "gpu ran it"]


async def test_an_engine_serves_what_its_definitions_name_unless_told_otherwise(store: Store) -> None:
    async with engine(store, caller := calling(on_gpu.bind()), on_gpu, probe=named("one")) as running:
        assert await running.client.run(caller.bind()) == "one ran it"


async def _run(handle: derecho.Handle[Any]) -> derecho.Run | None:
    run = await handle.describe()
    return run if run.status == "blocked" else None


async def test_an_activity_that_nobody_has_blocks_its_run_visibly_until_somebody_comes(store: Store) -> None:
    async with engine(store, caller := calling(here.bind())) as running:
        handle = await running.client.start(caller.bind())
        run = await eventually(lambda: _run(handle))
        assert run is not None
        assert run.blocked_reason == "no running engine has activity 'here': start one that registers it"
        async with engine(store, here, probe=named("late")):
            assert await handle.result(timeout=10) == "late ran it"


async def test_a_queue_that_nobody_serves_blocks_a_run_though_the_activity_is_known(store: Store) -> None:
    caller = calling(on_gpu.bind())
    async with engine(store, caller, on_gpu, queues=[Queue("default")]) as running:
        handle = await running.client.start(caller.bind())
        run = await eventually(lambda: _run(handle))
        assert run is not None
        assert "on queue 'gpu'" in (run.blocked_reason or "")


async def test_a_workflow_on_another_queue_is_left_to_others(store: Store) -> None:
    @derecho.workflow(queue=GPU)
    async def heavy(ctx: Context) -> str:
        return "done"

    async with engine(store, heavy, queues=[Queue("default")]) as other:
        handle = await other.client.start(heavy.bind())
        await quiet()
        assert (await handle.describe()).closed_at is None
        async with engine(store, heavy):
            assert await handle.result(timeout=10) == "done"


async def test_an_engine_runs_no_more_attempts_at_once_than_it_may(store: Store) -> None:
    @derecho.activity
    async def busy() -> int:
        notes = probe().notes
        notes.append("begin")
        most = notes.count("begin") - notes.count("end")
        await asyncio.sleep(0.005)
        notes.append("end")
        return most

    @derecho.workflow
    async def fan_out(ctx: Context) -> int:
        return max(await asyncio.gather(*(busy.execute(ctx) for _ in range(20))))

    async with engine(store, fan_out, busy, max_concurrent_activities=3) as running:
        assert await running.client.run(fan_out.bind()) == 3
