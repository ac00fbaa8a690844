"""W3 and W5: how soon things happen when nothing stands in the way, and when everything happens at once."""

import asyncio
import time

from benchmarks.definitions import nothing, one_activity, sleep
from benchmarks.measure import Figure, Setup, Workload, percentile
from derecho import Client, Handle

REST = 0.005
"""Seconds without anything to do, after which the processor's caches and the machine itself have gone cold."""


async def from_start_to_result(setup: Setup) -> list[Figure]:
    samples = setup.count(200, least=50)
    figures = []
    cases = [
        (workflow, f"{what}{when}", rest)
        for workflow, what in ((nothing, "no activity"), (one_activity, "one activity"))
        for when, rest in (("", 0.0), (", after 5 ms of rest", REST))
    ]
    async with setup.engine() as engine:
        for workflow, what, rest in cases:
            await engine.client.run(workflow.bind(0))
            waits = []
            for number in range(samples):
                if rest:
                    await asyncio.sleep(rest)
                began = time.perf_counter()
                assert await engine.client.run(workflow.bind(number)) == number
                waits.append((time.perf_counter() - began) * 1e3)
            figures += [
                Figure(f"{what}, p50", percentile(waits, 50), "ms"),
                Figure(f"{what}, p99", percentile(waits, 99), "ms"),
            ]
    return figures


async def many_timers(setup: Setup) -> list[Figure]:
    count, seconds = setup.count(2_000), 2.0
    async with setup.engine() as engine:
        client: Client = engine.client
        watch = setup.watch()
        handles = await client.start_many([(f"sleeper-{n}", sleep.bind(seconds)) for n in range(count)])

        async def lateness(handle: Handle[float]) -> float:
            due = await handle.result()
            return time.time() - due

        late = await asyncio.gather(*(lateness(handle) for handle in handles))
        assert watch.wall >= seconds
        assert min(late) >= 0, "a timer fired early"
        return [
            Figure("lateness, p50", percentile(late, 50) * 1e3, "ms"),
            Figure("lateness of the last", max(late) * 1e3, "ms"),
            Figure("CPU per workflow", watch.cpu / count * 1e6, "µs"),
        ]


WORKLOADS = [
    Workload("W3", "from start to result, one at a time on an idle engine", from_start_to_result),
    Workload("W5", "2,000 workflows that sleep 2 s", many_timers),
]
