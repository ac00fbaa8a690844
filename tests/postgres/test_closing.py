"""A store that is closed lets go of everything, and waits only for what its own loop does."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from derecho import Engine, PostgresStore
from derecho.journal.changes import Receipt, RegisterWorker, RenewWorker, Result, Transition
from derecho.journal.model import WorkerRow
from derecho.stores.postgres.address import parse
from derecho.stores.postgres.connections import Connections, Link
from tests.support.schemas import Janitor
from tests.support.world import eventually
from tests.support.wrapped import wrapped

LATER = 2**60
SESSIONS = "SELECT FROM pg_stat_activity WHERE application_name = 'derecho'"


@contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Somebody holds all rows of a table."""
    holder = Janitor(url)
    holder.execute(f"BEGIN; SELECT FROM {table} FOR UPDATE")
    yield
    holder.close()


async def test_a_store_closes_while_a_lease_is_renewed_on_another_thread(
    empty_schema_url: str, janitor: Janitor, shared_schema: str
) -> None:
    """The lease has a loop of its own, which nobody here can wait for."""
    store = PostgresStore(empty_schema_url)
    await store.commit([(RegisterWorker(WorkerRow("w", "w", LATER, [])),)])
    results: list[Result] = []

    def renew() -> None:
        results.extend(asyncio.run(_commit(store, (RenewWorker("w", LATER),))))

    renewal = threading.Thread(target=renew)
    with locked(janitor.url, f"{shared_schema}.workers"):
        renewal.start()
        await eventually(lambda: janitor.fetch(f"{SESSIONS} AND wait_event_type = 'Lock'"))
        async with asyncio.timeout(20):
            await store.close()
    await asyncio.to_thread(renewal.join)
    assert isinstance(results[0], Receipt)


async def test_work_of_another_loop_that_loses_its_connection_after_the_store_was_closed_leaves_none_behind(
    empty_schema_url: str, janitor: Janitor
) -> None:
    """It tries again, but its loop is not the one that keeps connections: nobody would close what it kept."""
    connections = Connections(parse(empty_schema_url, "any"), 1)
    connections.open()
    at_work, is_closed = threading.Event(), threading.Event()
    links: list[Link] = []

    async def work(link: Link) -> int:
        links.append(link)
        at_work.set()
        if len(links) == 1:
            await asyncio.to_thread(is_closed.wait)
            link.connection.terminate()
        return int(await link.connection.fetchval("SELECT 7"))

    renewal = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(connections.run(work))))
    await eventually(at_work.is_set)
    await connections.close()
    is_closed.set()
    assert await renewal == 7
    assert len(links) == 2
    await eventually(lambda: not janitor.fetch(SESSIONS))


async def _commit(store: PostgresStore, transition: Transition) -> list[Result]:
    return await store.commit([transition])


async def test_who_goes_away_before_there_was_a_connection_for_his_transaction_keeps_none(
    empty_schema_url: str, janitor: Janitor
) -> None:
    store = PostgresStore(empty_schema_url, pool_size=1)
    first, begun = asyncio.Event(), asyncio.Event()

    async def hold(connection: Any) -> Transition:
        begun.set()
        await first.wait()
        return (RegisterWorker(WorkerRow("first", "w", LATER, [])),)

    async def never(connection: Any) -> Transition:
        raise AssertionError("he has gone away")

    holds = asyncio.create_task(store.transact(hold))
    await begun.wait()
    waits = asyncio.create_task(store.transact(never))
    await asyncio.sleep(0)
    waits.cancel()
    await asyncio.wait({waits})
    assert waits.cancelled()
    first.set()
    assert isinstance(await holds, Receipt)
    async with asyncio.timeout(20):
        assert [worker.worker for worker in await store.workers()] == ["first"]
        await store.close()


async def test_an_engine_renews_its_lease_without_connecting_anew(empty_schema_url: str) -> None:
    """The lease has a thread of its own; a connection for each renewal would be most of what an idle engine costs."""
    store = PostgresStore(empty_schema_url)
    renewed, connected = 0, 0

    async def commit(original: Any, transitions: Any) -> Any:
        nonlocal renewed
        renewed += any(isinstance(change, RenewWorker) for transition in transitions for change in transition)
        return await original(transitions)

    async with Engine(wrapped(store, commit=commit), lease=0.3):
        await eventually(lambda: renewed >= 2)
        connect = store._connections.hosts.connect

        async def counting() -> Any:
            nonlocal connected
            connected += asyncio.get_running_loop() is not home
            return await connect()

        home = asyncio.get_running_loop()
        store._connections.hosts.connect = counting  # type: ignore[method-assign]
        before = renewed
        await eventually(lambda: renewed >= before + 3)
    await store.close()
    assert connected == 0
