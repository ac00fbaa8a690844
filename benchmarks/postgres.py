"""P1 and P2: what an activity asks of a PostgreSQL server, and what a second engine process adds."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.definitions import ACTIVITIES, WORKFLOWS, activities_in_sequence, busy_activities, one_activity
from benchmarks.measure import Figure, Setup, Workload, percentile
from benchmarks.relay import Relay
from benchmarks.stores import KINDS
from benchmarks.throughput import run_all
from derecho import Client, Engine, Workflow

AT_A_TIME = 32


async def what_an_activity_asks(setup: Setup) -> list[Figure]:
    count, each = setup.count(300), 10
    async with setup.engine() as engine:
        await run_all(engine.client, activities_in_sequence, [2] * 20)
        watch = setup.watch()
        results = await run_all(engine.client, activities_in_sequence, [each] * count)
        figures = watch.figures("activities", count * each)
        assert results == [sum(range(each))] * count
        figures += await under_load(setup, engine.client)
    await setup.store.close()
    return figures + await counted(setup, count, each)


async def under_load(setup: Setup, client: Client) -> list[Figure]:
    """From start to result while a fixed number of clients do nothing else."""
    numbers, waits = iter(range(setup.count(2_000))), []

    async def caller() -> None:
        for number in numbers:
            began = time.perf_counter()
            assert await client.run(one_activity.bind(number)) == number
            waits.append((time.perf_counter() - began) * 1e3)

    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))
    return [
        Figure(f"from start to result, {AT_A_TIME} at a time, p50", percentile(waits, 50), "ms"),
        Figure(f"from start to result, {AT_A_TIME} at a time, p99", percentile(waits, 99), "ms"),
    ]


async def counted(setup: Setup, count: int, each: int) -> list[Figure]:
    """The same work through a relay that counts; and that of a single workflow, where nothing can be shared."""
    figures = []
    with Relay(setup.url) as relay:
        store = setup.kind.make(setup.directory, relay.url)
        async with Engine(store, workflows=WORKFLOWS, activities=ACTIVITIES) as engine:
            await run_all(engine.client, activities_in_sequence, [each] * 20)
            for runs, steps, what in ((count, each, f"{count} at once"), (1, setup.count(200), "one alone")):
                before = relay.counts
                await run_all(engine.client, activities_in_sequence, [steps] * runs)
                found = relay.counts.since(before, runs * steps)
                figures += [Figure(f"{name} per activity, {what}", value, "") for name, value in found]
        await store.close()
    return figures


class Done(NamedTuple):
    """What some engine processes did: activities a second, and µs of CPU that each cost engines and server."""

    rate: float
    cpu: float


async def engine_processes(setup: Setup) -> list[Figure]:
    figures = []
    for workflow, count, what in ((activities_in_sequence, 600, "no-op"), (busy_activities, 200, "1 ms of CPU")):
        one, two = [await done_by(setup, workflow, setup.count(count, least=60), number) for number in (1, 2)]
        figures += [
            Figure(f"activities/s, {what}, one engine", one.rate, "1/s", "higher"),
            Figure(f"activities/s, {what}, two engines", two.rate, "1/s", "higher"),
            Figure(f"two engines over one, {what}", two.rate / one.rate, "x", "higher"),
            Figure(f"CPU per activity, {what}, one engine", one.cpu, "µs"),
            Figure(f"CPU per activity, {what}, two engines", two.cpu, "µs"),
        ]
    alone, both = (bare_loops(number) for number in (1, 2))
    return [*figures, Figure("two bare loops over one, no database", both / alone, "x", "higher")]


async def done_by(setup: Setup, workflow: Workflow[[int], int], count: int, engines: int) -> Done:
    """So many engine processes find the runs waiting for them."""
    async with Client(setup.store) as client:
        calls = [(f"{workflow.name}-{engines}-{n}", workflow.bind(10)) for n in range(count)]
        handles = await client.start_many(calls)
        processes = [await engine_process(setup) for _ in range(engines)]
        watch = setup.watch()
        for process in processes:
            process.stdin.write(b"go\n")
        await all_closed(setup.url)
        seconds, cpu = watch.wall, watch.server
        results = await asyncio.gather(*(handle.result() for handle in handles))
        assert results == [sum(range(10))] * count
        for process in processes:
            process.stdin.close()
            cpu += float(await process.stdout.readline())
            assert await process.wait() == 0
    return Done(count * 10 / seconds, cpu / count / 10 * 1e6)


async def all_closed(url: str) -> None:
    """Asks for one number, now and then, so that waiting costs the server nothing."""
    import asyncpg  # the other stores are measured without it

    connection = await asyncpg.connect(url)
    while await connection.fetchval("SELECT count(*) FROM derecho.live"):  # noqa: ASYNC110  # the store has no event
        await asyncio.sleep(0.02)
    await connection.close()


async def engine_process(setup: Setup) -> Any:
    """One that has read its code and opened its store."""
    arguments = (setup.kind.name, str(setup.directory), setup.url)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.postgres", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def work(kind: str, directory: str, url: str) -> None:
    """An engine process: works from the line "go" until its input ends, then says what CPU that took."""
    store = KINDS[kind].make(Path(directory), url)
    engine = Engine(store, workflows=WORKFLOWS, activities=ACTIVITIES)
    await store.open()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.process_time()
    async with engine:
        await asyncio.to_thread(sys.stdin.readline)
        spent = time.process_time() - began
    await store.close()
    print(spent, flush=True)


def bare_loops(number: int) -> float:
    """Turns a second that so many processes with nothing but a loop make together."""
    code = "import time\nend, n = time.perf_counter() + 1, 0\nwhile time.perf_counter() < end:\n    n += 1\nprint(n)"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(number)]
    return float(sum(int(process.communicate()[0]) for process in running))


WORKLOADS = [
    Workload("P1", "what an activity asks of the server", what_an_activity_asks, ("postgres",), default=False),
    Workload("P2", "one engine process and two, on one server", engine_processes, ("postgres",), default=False),
]

if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
