"""W1 and W2: how many workflows and activities an engine gets done."""

import asyncio

from benchmarks.definitions import activities_in_sequence, one_activity, steps_in_sequence
from benchmarks.floor import distance
from benchmarks.measure import Figure, Setup, Stopwatch, Workload, peak_memory
from derecho import Client, Workflow


async def run_all(client: Client, workflow: Workflow[[int], int], inputs: list[int]) -> list[int]:
    """Start everything at once and wait for all results."""
    return await asyncio.gather(*(client.run(workflow.bind(value)) for value in inputs))


async def one_activity_each(setup: Setup) -> list[Figure]:
    count = setup.count(2_000)
    async with setup.engine() as engine:
        assert await run_all(engine.client, one_activity, list(range(50))) == list(range(50))
        watch = Stopwatch()
        assert await run_all(engine.client, one_activity, list(range(count))) == list(range(count))
        return [*watch.figures("workflows", count), Figure("peak memory of the process", peak_memory(), "MB")]


async def ten_activities_each(setup: Setup) -> list[Figure]:
    count, each = setup.count(300), 10
    async with setup.engine() as engine:
        await run_all(engine.client, activities_in_sequence, [2] * 20)
        committer = engine.committer
        commits, transitions = committer.commits, committer.transitions
        watch = Stopwatch()
        results = await run_all(engine.client, activities_in_sequence, [each] * count)
        figures, wall = watch.figures("activities", count * each), watch.wall
        assert results == [sum(range(each))] * count
        commits, transitions = committer.commits - commits, committer.transitions - transitions
        figures.append(Figure("transitions per commit", transitions / commits, "", "higher"))
        rows = count * (each + 1)
        return figures + await distance(setup, engine.client, activities_in_sequence, commits, rows / wall)


async def ten_steps_each(setup: Setup) -> list[Figure]:
    count, each = setup.count(300), 10
    async with setup.engine() as engine:
        await run_all(engine.client, steps_in_sequence, [2] * 20)
        watch = Stopwatch()
        results = await run_all(engine.client, steps_in_sequence, [each] * count)
        figures = watch.figures("steps", count * each)
        assert results == [sum(range(each))] * count
        return figures


WORKLOADS = [
    Workload("W1", "2,000 workflows, one activity each", one_activity_each),
    Workload("W2", "300 workflows, 10 activities in sequence each", ten_activities_each),
    Workload("W2s", "300 workflows, 10 steps in sequence each", ten_steps_each),
]
