"""W9: what an engine costs while nothing happens."""

import asyncio
import gc

from benchmarks.definitions import nothing, sleep
from benchmarks.measure import Figure, Setup, Stopwatch, Workload, memory
from derecho import Engine
from derecho.journal.store import Store

_READS = ("claim_runs", "claim_activities", "due_timers", "overdue", "load", "closed", "commit")


def count_calls(store: Store) -> list[str]:
    """The names of the store's methods, as they are called from now on."""
    calls: list[str] = []

    def counted(name: str) -> None:
        method = getattr(store, name)

        async def call(*args: object, **options: object) -> object:
            calls.append(name)
            return await method(*args, **options)

        setattr(store, name, call)

    for name in _READS:
        counted(name)
    return calls


async def idle(engine: Engine, seconds: float, calls: list[str]) -> tuple[float, float]:
    """CPU seconds and calls of the store, both per second."""
    await asyncio.sleep(0.3)
    calls.clear()
    watch = Stopwatch()
    await asyncio.sleep(seconds)
    return watch.cpu / watch.wall, len(calls) / watch.wall


async def nothing_to_do(setup: Setup) -> list[Figure]:
    sleepers, seconds = setup.count(1_000), setup.seconds(4)
    calls = count_calls(setup.store)
    async with setup.engine(cache_size=sleepers) as engine:
        await asyncio.gather(*(engine.client.run(nothing.bind(n)) for n in range(100)))
        cpu_of_none, calls_of_none = await idle(engine, seconds, calls)
        gc.collect()
        before = memory()
        handles = await engine.client.start_many([(f"sleeper-{n}", sleep.bind(86_400.0)) for n in range(sleepers)])
        assert len(handles) == sleepers
        cpu, calls_of_many = await idle(engine, seconds, calls)
        gc.collect()
        after = memory()
    return [
        Figure("CPU, no runs", cpu_of_none * 100, "%"),
        Figure(f"CPU, {sleepers:,} sleeping runs", cpu * 100, "%"),
        Figure("store calls/s, no runs", calls_of_none, "1/s"),
        Figure(f"store calls/s, {sleepers:,} sleeping runs", calls_of_many, "1/s"),
        Figure("memory per sleeping run, warm", (after - before) / sleepers / 1024, "KiB"),
    ]


WORKLOADS = [Workload("W9", "an idle engine, and one with 1,000 sleeping runs", nothing_to_do)]
