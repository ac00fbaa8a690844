"""What only the database can decide between two processes: who was first, and what time it is."""

import asyncio
import os
import random
import time
from collections import Counter
from typing import Any

import asyncpg
import pytest

from derecho import Client, PostgresStore
from derecho.clock import SECOND
from derecho.errors import WorkflowAlreadyRunning
from derecho.journal.changes import BuryWorker, Deliver, FinishActivity, Receipt, RegisterWorker, Transition
from derecho.journal.model import WorkerRow
from derecho.stores.postgres import hosts
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import World, message
from tests.postgres.load import order
from tests.support.schemas import Janitor

ROUNDS, STARTERS = int(os.environ.get("DERECHO_STARTS", "50")), 32


async def test_of_many_starts_of_one_id_at_once_one_makes_a_run(
    empty_schema_url: str, janitor: Janitor, shared_schema: str
) -> None:
    clients = [Client(empty_schema_url) for _ in range(4)]
    counts: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    asked_before_an_answer: dict[str, int] = {}

    async def start(client: Client, id: str, barrier: asyncio.Barrier) -> str | None:
        await barrier.wait()
        asked[id] += 1
        try:
            handle = await client.start(order.bind(1), id=id)
        except WorkflowAlreadyRunning as exc:
            counts["refused"] += 1
            return exc.run_id
        finally:
            asked_before_an_answer.setdefault(id, asked[id])
        counts["started"] += 1
        return (await handle.describe()).run_id

    for number in range(ROUNDS):
        barrier = asyncio.Barrier(STARTERS)
        starts = [start(clients[n % len(clients)], f"w{number}", barrier) for n in range(STARTERS)]
        assert len(set(await asyncio.gather(*starts))) == 1, "all are told of the same run"
    for client in clients:
        await client.close()
    print(dict(counts))
    assert set(asked_before_an_answer.values()) == {STARTERS}, "all of a round had asked before one was answered"
    assert counts == {"started": ROUNDS, "refused": ROUNDS * (STARTERS - 1)}
    assert janitor.fetch(f"SELECT count(*) FROM {shared_schema}.runs")[0][0] == ROUNDS


async def blocked(watcher: Any, work: "asyncio.Task[Any]") -> None:
    """Wait until some session waits for a lock."""
    while not await watcher.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')"):
        assert not work.done(), "it should wait for a lock"
        await watcher.execute("SELECT pg_stat_clear_snapshot()")


@pytest.mark.parametrize("table", ["live", "activities"])
async def test_rows_are_locked_in_one_order_so_that_no_two_batches_wait_in_a_ring(
    empty_schema_url: str, postgres_url: str, shared_schema: str, table: str
) -> None:
    clock = VirtualClock()
    world = World(PostgresStore(empty_schema_url, clock=clock), clock)
    numbers = list(range(1, 10))
    for number in numbers:
        await world.sleeping(number)
        await world.activity(5, f"run-{number}", claim="mine")
    batch: list[Transition] = [
        (Deliver(message(), run_id=f"run-{n}") if table == "live" else FinishActivity(f"run-{n}", 5, "mine"),)
        for n in random.Random(5).sample(numbers, 9)
    ]
    holder: Any = await asyncpg.connect(postgres_url)
    free = f"SELECT run_id FROM {shared_schema}.{table} ORDER BY run_id FOR NO KEY UPDATE SKIP LOCKED"
    async with holder.transaction():
        await holder.execute(f"SELECT FROM {shared_schema}.{table} WHERE run_id = 'run-5' FOR NO KEY UPDATE")
        work = asyncio.create_task(world.store.commit(batch))
        await blocked(holder, work)
        assert [row[0] for row in await holder.fetch(free)] == ["run-5", "run-6", "run-7", "run-8", "run-9"]
    assert all(isinstance(result, Receipt) for result in await work)
    await holder.close()
    await world.store.close()


async def test_a_claim_waits_for_no_row_that_another_one_holds(
    empty_schema_url: str, postgres_url: str, shared_schema: str
) -> None:
    clock = VirtualClock()
    world = World(PostgresStore(empty_schema_url, clock=clock), clock)
    await world.register()
    for number in (1, 2):
        await world.start(number)
        await world.activity(5, f"run-{number}")
    holder: Any = await asyncpg.connect(postgres_url)
    async with holder.transaction():
        for table in ("live", "activities"):
            await holder.execute(f"SELECT FROM {shared_schema}.{table} WHERE run_id = 'run-1' FOR NO KEY UPDATE")
        async with asyncio.timeout(20):
            assert [item.run.run_id for item in await world.claim()] == ["run-2"]
            assert [row.run_id for row in await world.claim_activities()] == ["run-2"]
    assert [item.run.run_id for item in await world.claim()] == ["run-1"]
    assert [row.run_id for row in await world.claim_activities()] == ["run-1"]
    await holder.close()
    await world.store.close()


async def test_an_engine_that_is_stopped_inside_a_claim_does_not_keep_what_it_holds(
    empty_schema_url: str, shared_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "idle_in_transaction_session_timeout"
    monkeypatch.setattr(hosts, "SETTINGS", {**hosts.SETTINGS, name: str(int(hosts.SETTINGS[name]) // 5)})
    stopped, other = PostgresStore(empty_schema_url), PostgresStore(empty_schema_url)
    await stopped.open()
    row = WorkerRow("worker-1", "test", stopped.now(), [])
    await stopped.commit([(RegisterWorker(row),)])
    link = await stopped._connections.take()
    await link.connection.execute("BEGIN")
    await link.connection.execute(f"SELECT FROM {shared_schema}.workers WHERE worker = 'worker-1' FOR KEY SHARE")
    async with asyncio.timeout(20):
        assert await other.commit([(BuryWorker("worker-1"),)]) == [Receipt()]
    link.connection.terminate()
    await stopped._connections.give(link)
    for store in (stopped, other):
        await store.close()


async def test_a_lease_that_runs_out_while_its_burial_waits_for_a_lock_has_run_out(
    empty_schema_url: str, postgres_url: str, shared_schema: str
) -> None:
    """The instant that decides is read when the lock is held, not when the transaction began."""
    store = PostgresStore(empty_schema_url)
    await store.open()
    row = WorkerRow("worker-1", "test", store.now() + SECOND, [])
    await store.commit([(RegisterWorker(row),)])
    holder: Any = await asyncpg.connect(postgres_url)
    async with holder.transaction():
        await holder.execute(f"SELECT FROM {shared_schema}.workers FOR UPDATE")
        burial = asyncio.create_task(store.commit([(BuryWorker("worker-1"),)]))
        await blocked(holder, burial)
        await holder.execute(
            f"SELECT pg_sleep(greatest(0, {row.lease_until} - {shared_schema}.instant()) / 1e6 + 0.01)"
        )
    assert await burial == [Receipt()]
    await holder.close()
    await store.close()


@pytest.mark.parametrize("days", [-1, 1])
async def test_an_engine_whose_clock_is_a_day_off_goes_by_the_databases(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    wall = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall() + days * 86_400 * 1_000_000_000)
    store = PostgresStore(empty_schema_url)
    await store.open()
    (instant,) = janitor.fetch(f"SELECT {shared_schema}.instant()")[0]
    assert abs(store.now() - instant) < 60 * SECOND
    await store.close()


@pytest.mark.parametrize("days", [-1, 1])
async def test_a_client_whose_clock_is_a_day_off_starts_runs_now(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    wall = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall() + days * 86_400 * 1_000_000_000)
    client = Client(empty_schema_url)
    await client.start(order.bind(1), id="w")
    await client.close()
    looked = janitor.fetch(f"SELECT ready_at - {shared_schema}.instant() FROM {shared_schema}.live")
    assert abs(looked[0][0]) < 60 * SECOND
