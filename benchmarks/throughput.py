"""W1 and W2: how many workflows and activities an engine gets done."""

import asyncio

from benchmarks.definitions import activities_in_sequence, one_activity, steps_in_sequence
from benchmarks.floor import Meter
from benchmarks.measure import Figure, Setup, Workload, peak_memory
from derecho import Client, Workflow


async def run_all(client: Client, workflow: Workflow[[int], int], inputs: list[int]) -> list[int]:
    """Start everything at once and wait for all results."""
    return await asyncio.gather(*(client.run(workflow.bind(value)) for value in inputs))


async def one_activity_each(setup: Setup) -> list[Figure]:
    count = setup.count(2_000)
    async with setup.engine() as engine:
        assert await run_all(engine.client, one_activity, list(range(50))) == list(range(50))
        meter = Meter(setup, engine.client, engine.committer)
        watch = setup.watch()
        results = await run_all(engine.client, one_activity, list(range(count)))
        figures, wall = watch.figures("workflows", count), watch.wall
        assert results == list(range(count))
        figures.append(Figure("peak memory of the process", peak_memory(), "MB"))
        return figures + await meter.figures(one_activity, wall)


async def ten_each(setup: Setup, workflow: Workflow[[int], int], what: str) -> list[Figure]:
    count, each = setup.count(300), 10
    async with setup.engine() as engine:
        await run_all(engine.client, workflow, [2] * 20)
        meter = Meter(setup, engine.client, engine.committer)
        watch = setup.watch()
        results = await run_all(engine.client, workflow, [each] * count)
        figures, wall = watch.figures(what, count * each), watch.wall
        assert results == [sum(range(each))] * count
        return figures + await meter.figures(workflow, wall)


async def ten_activities_each(setup: Setup) -> list[Figure]:
    return await ten_each(setup, activities_in_sequence, "activities")


async def ten_steps_each(setup: Setup) -> list[Figure]:
    return await ten_each(setup, steps_in_sequence, "steps")


WORKLOADS = [
    Workload("W1", "2,000 workflows, one activity each", one_activity_each),
    Workload("W2", "300 workflows, 10 activities in sequence each", ten_activities_each),
    Workload("W2s", "300 workflows, 10 steps in sequence each", ten_steps_each),
]
