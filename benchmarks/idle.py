"""W9: what an engine costs while nothing happens, by itself and with many sleeping runs.

Each is measured as it is, and with its memory kept in place (see `resident`): the second is what the engine and the
database do, the first has besides it what the machine takes for memory that was at rest.
"""

import asyncio
import gc

from benchmarks.definitions import nothing, sleep
from benchmarks.measure import Figure, Setup, Workload, memory
from benchmarks.resident import kept_in_place
from benchmarks.server import settle
from derecho import Engine
from derecho.journal.store import Store

_CALLS = ("claim_runs", "claim_activities", "due_timers", "overdue", "load", "closed", "commit")
_TOLD = 20
"""Seconds for which the CPU time is told, however long it was measured."""
_SHORTEST = 10.0
"""In which an engine looks once without a hint."""


def count_calls(store: Store) -> list[str]:
    """The names of the store's methods, as they are called from now on."""
    calls: list[str] = []

    def counted(name: str) -> None:
        method = getattr(store, name)

        async def call(*args: object, **options: object) -> object:
            calls.append(name)
            return await method(*args, **options)

        setattr(store, name, call)

    for name in _CALLS:
        counted(name)
    return calls


async def quiet(calls: list[str]) -> None:
    """Return when nothing has been written for a while."""
    calls.append("commit")
    while "commit" in calls:
        calls.clear()
        await asyncio.sleep(0.3)


async def idle(setup: Setup, calls: list[str], what: str) -> list[Figure]:
    await quiet(calls)
    if setup.kind.is_postgres:
        await settle(setup.url)
    figures = await rest(setup, calls, what)
    with kept_in_place(setup.postmaster) as is_kept:
        if is_kept:
            figures += (await rest(setup, calls, f"{what}, memory kept in place"))[:1]
    return figures


async def rest(setup: Setup, calls: list[str], what: str) -> list[Figure]:
    """What it costs to do nothing for a while."""
    calls.clear()
    watch = setup.watch()
    await asyncio.sleep(max(_SHORTEST, setup.seconds(_TOLD)))
    cpu, server, wall = watch.cpu, watch.server, watch.wall
    return [
        Figure(f"CPU in {_TOLD} s, {what}", (cpu + server) / wall * _TOLD, "s"),
        Figure(f"store calls/s, {what}", len(calls) / wall, "1/s"),
    ]


async def start_sleepers(engine: Engine, first: int, last: int) -> None:
    for start in range(first, last, 2_000):
        calls = [(f"sleeper-{n}", sleep.bind(86_400.0)) for n in range(start, min(last, start + 2_000))]
        assert len(await engine.client.start_many(calls)) == len(calls)


async def nothing_to_do(setup: Setup) -> list[Figure]:
    few, many = setup.count(1_000), setup.count(100_000)
    calls = count_calls(setup.store)
    async with setup.engine() as engine:
        await asyncio.gather(*(engine.client.run(nothing.bind(n)) for n in range(100)))
        figures = await idle(setup, calls, "no runs")
        sizes = []
        for asleep, more in ((0, few), (few, many)):
            gc.collect()
            sizes.append(memory())
            await start_sleepers(engine, asleep, more)
            figures += await idle(setup, calls, f"{more:,} sleeping runs")
        gc.collect()
        warm, cold = (sizes[1] - sizes[0]) / few, (memory() - sizes[1]) / (many - few)
    return [
        *figures,
        Figure("memory per sleeping run, cached", warm / 1024, "KiB"),
        Figure("memory per sleeping run beyond the cache", cold / 1024, "KiB"),
    ]


WORKLOADS = [Workload("W9", "an idle engine, with 1,000 and with 100,000 sleeping runs", nothing_to_do)]
