"""W4, W6 and W8: one large run, where costs that grow with its size would show."""

import asyncio
import time

import derecho
from benchmarks.definitions import GO, ITEMS, activities_in_parallel, collect, steps_then_wait
from benchmarks.measure import Figure, Setup, Stopwatch, Workload


async def parallel_activities(setup: Setup) -> list[Figure]:
    figures, costs = [], []
    async with setup.engine() as engine:
        await engine.client.run(activities_in_parallel.bind(100))
        for count in (setup.count(1_000), setup.count(10_000)):
            watch = Stopwatch()
            assert await engine.client.run(activities_in_parallel.bind(count)) == sum(range(count))
            wall, cpu = watch.wall / count, watch.cpu / count
            figures += [
                Figure(f"per activity, {count:,}", wall * 1e6, "µs"),
                Figure(f"CPU per activity, {count:,}", cpu * 1e6, "µs"),
            ]
            costs.append((wall, cpu))
    small, large = costs
    return [
        *figures,
        Figure("growth of the cost per activity", large[0] / small[0], "x"),
        Figure("growth of its CPU time", large[1] / small[1], "x"),
    ]


async def many_signals(setup: Setup) -> list[Figure]:
    count = setup.count(1_000)
    async with setup.engine() as engine:
        await engine.client.run(activities_in_parallel.bind(10))
        handle = await engine.client.start(collect.bind(count))
        watch = Stopwatch()
        await asyncio.gather(*(handle.signal(ITEMS, number) for number in range(count)))
        acknowledged = watch.wall
        assert await handle.result() == sum(range(count))
        return [Figure("acknowledged/s", count / acknowledged, "1/s", "higher"), *watch.figures("signals", count)]


async def many_steps(setup: Setup) -> list[Figure]:
    count = setup.count(2_000, least=400)
    async with setup.engine() as engine:
        handle = await engine.client.start(steps_then_wait.bind(count), id="long")
        watch = Stopwatch()
        while (await engine.client.find("long")).tasks <= count:  # noqa: ASYNC110  # the store has no event for it
            await asyncio.sleep(0.05)
        cpu = watch.cpu
        history = await handle.history()
    times = [task.at for task in history.tasks]
    first, last = times[101] - times[1], times[count] - times[count - 100]
    began = time.thread_time()
    derecho.replay(steps_then_wait, history)
    replayed = time.thread_time() - began
    async with setup.engine() as engine:
        again = engine.client.get(steps_then_wait, "long")
        watch = Stopwatch()
        await again.signal(GO, 1)
        assert await again.result() == sum(range(count)) + 1
        resumed = watch.wall
    return [
        Figure("per step", (times[count] - times[0]) / count / 1e3, "ms"),
        Figure("CPU per step", cpu / count * 1e6, "µs"),
        Figure("growth from the first to the last 100", last / first, "x"),
        Figure("replay, events/s of CPU time", len(history) / replayed, "1/s", "higher"),
        Figure("resumed by another engine", resumed * 1e3, "ms"),
    ]


WORKLOADS = [
    Workload("W4", "one workflow, 1,000 and 10,000 activities in parallel", parallel_activities),
    Workload("W6", "1,000 signals into one workflow", many_signals),
    Workload("W8", "one workflow, 2,000 steps in sequence", many_steps),
]
