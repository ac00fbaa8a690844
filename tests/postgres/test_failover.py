"""A standby takes over: when it was synchronous nothing acknowledged is lost, when it was not nothing is made up."""

import asyncio
import logging
import os
import signal

import pytest

import derecho
from derecho import Client, Context, Engine, PostgresStore, Signal
from derecho.errors import StoreUnavailable, WorkflowNotFound
from derecho.journal.changes import CreateRun
from derecho.testing.conformance.kit import run_row
from tests.postgres.load import Load, double, order
from tests.postgres.proxy import Proxy
from tests.support.clusters import Cluster, cluster
from tests.support.world import eventually

PROMOTIONS = int(os.environ.get("DERECHO_PROMOTIONS", "2"))
NUMBER = Signal("number", int)


@derecho.workflow
async def collect(ctx: Context) -> list[int]:
    """The numbers that it was sent, up to a negative one."""
    seen: list[int] = []
    while (number := await ctx.signals(NUMBER).receive()) >= 0:
        seen.append(await double.execute(ctx, number))
    return seen


class Gate:
    """Steps wait here, so that a run is held for as long as the test likes."""

    opened: asyncio.Event


@derecho.workflow
async def careful(ctx: Context) -> str:
    async def hold() -> str:
        await Gate.opened.wait()
        return "held"

    return await ctx.step("hold", hold)


async def take_over(made: Cluster) -> None:
    """The newest server takes the place of the one before it, which dies."""
    made.servers[-2].kill()
    await made.servers[-1].promote()


async def test_no_acknowledged_start_or_signal_is_lost_when_a_synchronous_standby_is_promoted() -> None:
    async with cluster(PROMOTIONS + 1) as made:
        await made.add_standby()
        await made.servers[0].demand_standby()
        definitions = {"workflows": [order], "activities": [double], "lease": 3.0}
        async with (
            Engine(made.address, **definitions) as one,  # type: ignore[arg-type]  # the same options twice
            Engine(made.address, **definitions) as two,  # type: ignore[arg-type]
            Client(made.address) as client,
        ):
            load = Load(client)
            async with load.running():
                await load.progress()
                for turn in range(PROMOTIONS):
                    await load.fault("promotions")
                    await take_over(made)
                    await load.progress(20)
                    if turn + 1 < PROMOTIONS:
                        await made.add_standby()
                        await made.servers[-2].demand_standby()
                        await load.progress()
                await an_old_primary_returns(made, load)
            await load.check(PROMOTIONS)
            assert one.incarnation != two.incarnation


async def an_old_primary_returns(made: Cluster, load: Load) -> None:
    """It believes to be the primary, takes writes, and is named first: nobody may follow it."""
    old, new = made.servers[0], made.servers[-1]
    old.set("synchronous_standby_names = ''")
    old.set("log_connections = on")
    await old.start()
    assert not await old.fetchval("SELECT pg_is_in_recovery()")
    rows = "SELECT (SELECT count(*) FROM derecho.history) + (SELECT count(*) FROM derecho.runs)"
    before = await old.fetchval(rows)
    log = old.data.with_name(f"{old.data.name}.log")
    so_far = log.read_text().count("application_name=derecho")
    new.kill()
    await eventually(lambda: log.read_text().count("application_name=derecho") >= so_far + 5)
    await new.start()
    await load.progress(20)
    async with Client(made.address) as fresh:
        await fresh.start(order.bind(1), id="fresh")
    assert await new.fetchval("SELECT count(*) FROM derecho.runs WHERE workflow_id = 'fresh'") == 1
    assert await old.fetchval(rows) == before
    old.kill()


async def persistently(client: Client, workflow_id: str, number: int) -> None:
    """Send a number, again and again until it is acknowledged."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await client.get(collect, workflow_id).signal(NUMBER, number, key=f"number {number}")
            except StoreUnavailable:
                await asyncio.sleep(0.05)


async def received(client: Client, workflow_id: str, number: int) -> None:
    """Wait until a number was received and doubled."""

    async def done() -> bool:
        events = [event["type"] for event in await client.get(collect, workflow_id).history()]
        return events.count("activity_completed") == number

    await eventually(done)


async def test_an_asynchronous_standby_with_lag_loses_work_but_makes_nothing_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "derecho")
    Gate.opened = asyncio.Event()
    ids = [f"c{number}" for number in range(10)]
    held = [f"h{number}" for number in range(5)]
    definitions = {"workflows": [collect, careful], "activities": [double], "lease": 2.0}
    async with (
        cluster(2) as made,
        Engine(made.address, **definitions) as engine,  # type: ignore[arg-type]
    ):
        client, standby = engine.client, await made.add_standby()
        before = engine.incarnation
        for workflow_id in ids:
            await client.start(collect.bind(), id=workflow_id)
            await persistently(client, workflow_id, 1)
            await received(client, workflow_id, 1)
        for workflow_id in held:
            await client.start(careful.bind(), id=workflow_id)
        await eventually(lambda: sum(bool(run.steps) for run in engine.workflows.runs) == len(held))
        so_far = await made.servers[0].fetchval("SELECT pg_current_wal_lsn()::text")
        await made.servers[0].until(f"SELECT true FROM pg_stat_replication WHERE replay_lsn >= '{so_far}'")

        for statement in ("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()"):
            await standby.fetchval(statement)
        await made.servers[0].until("SELECT NOT EXISTS (SELECT FROM pg_stat_replication)")
        lost = ids[: len(ids) // 2]
        for workflow_id in lost:
            await persistently(client, workflow_id, 2)
            await received(client, workflow_id, 2)
        await client.start(collect.bind(), id="lost")
        Gate.opened.set()
        for workflow_id in held:
            assert await client.get(careful, workflow_id).result(timeout=30) == "held"

        await take_over(made)
        for workflow_id in ids:
            await persistently(client, workflow_id, 3)
            await persistently(client, workflow_id, -1)
        results = {workflow_id: await client.get(collect, workflow_id).result(timeout=60) for workflow_id in ids}
        assert results == {workflow_id: [2, 6] for workflow_id in ids}, "2 was never received, on this history"
        for workflow_id in held:
            assert await client.get(careful, workflow_id).result(timeout=60) == "held"
        for workflow_id in ids:
            derecho.replay(collect, await client.get(collect, workflow_id).history())
        with pytest.raises(WorkflowNotFound):
            await client.get(collect, "lost").describe()
        assert engine.incarnation != before, "it went on with leases that are gone"
        assert await standby.fetchval("SELECT count(*) FROM derecho.live") == 0
    assert "goes on from another history" in caplog.text


async def test_a_commit_whose_wait_was_cancelled_is_acknowledged_when_its_standby_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with cluster(2) as made, Client(made.address) as client:
        primary, standby = made.servers[0], await made.add_standby()
        await client.start(order.bind(0), id="before")
        await primary.demand_standby()
        standby.signal(signal.SIGSTOP)
        starting = asyncio.create_task(client.start(order.bind(1), id="w"))
        waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        await primary.until(f"SELECT EXISTS (SELECT {waiting})")
        assert await primary.fetchval(f"SELECT count(pg_cancel_backend(pid)) {waiting}") == 1
        await primary.until(f"SELECT EXISTS (SELECT {waiting} AND query LIKE '%barrier%')")
        assert await primary.fetchval("SELECT count(*) FROM derecho.runs WHERE workflow_id = 'w'") == 1
        assert not starting.done(), "only the primary has it, and others see it there"
        async with Client(made.address) as other:
            again = asyncio.create_task(other.start(order.bind(1), id="w", if_running="use_existing"))
            await primary.until(f"SELECT count(*) = 2 {waiting}")
            assert not again.done(), "nor is it told to others that it is there"
            standby.signal(signal.SIGCONT)
            await again
        standby.signal(signal.SIGCONT)
        await starting
        await take_over(made)
        assert (await client.get(order, "w").describe()).status == "running"
    assert "was not waited for by its standby" in caplog.text


async def test_connections_to_an_old_primary_are_dropped_when_another_one_has_met_the_new() -> None:
    """A name, or a balancer, leads new connections to the promoted standby while the old primary lives on."""
    async with cluster(2) as made:
        old, new = made.servers[0], await made.add_standby()
        async with Proxy(old.port) as proxy:
            store = PostgresStore(f"postgresql://derecho@127.0.0.1:{proxy.port}/postgres?sslmode=disable&durable=off")
            await store.commit([(CreateRun(run_row(1), ()),)])
            so_far = await old.fetchval("SELECT pg_current_wal_lsn()::text")
            await old.until(f"SELECT true FROM pg_stat_replication WHERE replay_lsn >= '{so_far}'")
            await new.promote()
            proxy.server = new.port
            assert await asyncio.to_thread(lambda: asyncio.run(store.get_run("run-1")))
            await store.commit([(CreateRun(run_row(2), ()),)])
            await store.close()
        rows = "SELECT count(*) FROM derecho.runs"
        assert (await old.fetchval(rows), await new.fetchval(rows)) == (1, 2)
