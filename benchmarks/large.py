"""W4, W6 and W8: one large run, where costs that grow with its size would show."""

import asyncio
import time
from statistics import median

import derecho
from benchmarks.definitions import GO, ITEMS, activities_in_parallel, collect, steps_then_wait
from benchmarks.floor import Meter
from benchmarks.measure import Figure, Setup, Workload
from derecho import Client, Handle, History


async def parallel_activities(setup: Setup) -> list[Figure]:
    figures, costs = [], []
    async with setup.engine() as engine:
        await engine.client.run(activities_in_parallel.bind(100))
        for count in (setup.count(1_000), setup.count(4_000), setup.count(10_000)):
            watch = setup.watch()
            assert await engine.client.run(activities_in_parallel.bind(count)) == sum(range(count))
            wall, cpu = watch.wall / count, watch.cpu / count
            figures += [
                Figure(f"activities/s, {count:,}", 1 / wall, "1/s", "higher"),
                Figure(f"CPU per activity, {count:,}", cpu * 1e6, "µs"),
            ]
            costs.append((wall, cpu))
    small, _, large = costs
    return [
        *figures,
        Figure("growth of the cost per activity", large[0] / small[0], "x"),
        Figure("growth of its CPU time", large[1] / small[1], "x"),
    ]


async def many_signals(setup: Setup) -> list[Figure]:
    count, runs, each = setup.count(1_000), setup.count(1_000), 10
    async with setup.engine() as engine:
        client = engine.client
        await client.run(activities_in_parallel.bind(10))
        handle = await client.start(collect.bind(count))
        watch = setup.watch()
        await asyncio.gather(*(handle.signal(ITEMS, number) for number in range(count)))
        acknowledged = count / watch.wall
        assert await handle.result() == sum(range(count))
        into_one = watch.figures("signals into one", count)
        handles = await client.start_many([(f"collect-{n}", collect.bind(each)) for n in range(runs)])
        watch = setup.watch()
        await asyncio.gather(*(handle.signal(ITEMS, number) for number in range(each) for handle in handles))
        results = await asyncio.gather(*(handle.result() for handle in handles))
        into_many = watch.figures("signals into many", runs * each)
        assert results == [sum(range(each))] * runs
        return [Figure("signals into one/s, acknowledged", acknowledged, "1/s", "higher"), *into_one, *into_many]


def _replay(history: History) -> float:
    """CPU seconds in which a history is replayed."""
    began = time.thread_time()
    derecho.replay(steps_then_wait, history)
    return time.thread_time() - began


async def many_steps(setup: Setup) -> list[Figure]:
    count = setup.count(2_000, least=400)
    async with setup.engine() as engine:
        handle = await engine.client.start(steps_then_wait.bind(0), id="warm-up")
        await handle.signal(GO, 0)
        await handle.result()
        meter, watch = Meter(setup, engine.client, engine.committer), setup.watch()
        handle = await engine.client.start(steps_then_wait.bind(count), id="long")
        await _advanced(engine.client, "long", count)
        cpu = watch.cpu
        history = await handle.history()
        times = [task.at for task in history.tasks]
        against_floor = await meter.figures(steps_then_wait, (times[count] - times[0]) / 1e6)
    first, last = times[101] - times[1], times[count] - times[count - 100]
    replayed = median(_replay(history) for _ in range(5))
    return [
        Figure("per step", (times[count] - times[0]) / count / 1e3, "ms"),
        Figure("CPU per step", cpu / count * 1e6, "µs"),
        Figure("growth from the first to the last 100", last / first, "x"),
        *against_floor,
        Figure("replay, events/s of CPU time", len(history) / replayed, "1/s", "higher"),
        Figure("taken up by another engine", await _take_up(setup, count) * 1e3, "ms"),
    ]


async def _advanced(client: Client, id: str, tasks: int) -> None:
    while (await client.find(id)).tasks <= tasks:  # noqa: ASYNC110  # the store has no event for it
        await asyncio.sleep(0.05)


async def _take_up(setup: Setup, count: int) -> float:
    """Seconds from a signal to the result, with an engine that must load and replay the run first."""
    async with setup.engine() as engine:
        again: Handle[int] = engine.client.get(steps_then_wait, "long")
        watch = setup.watch()
        await again.signal(GO, 1)
        assert await again.result() == sum(range(count)) + 1
        return watch.wall


WORKLOADS = [
    Workload("W4", "one workflow, 1,000, 4,000 and 10,000 activities in parallel", parallel_activities),
    Workload("W6", "1,000 signals into one workflow, then 10 into each of 1,000", many_signals),
    Workload("W8", "one workflow, 2,000 steps in sequence", many_steps),
]
