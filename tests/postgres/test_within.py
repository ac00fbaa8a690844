"""A workflow starts, a signal is sent, in a transaction of the user's on PostgreSQL: with their rows or not at all."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

import derecho
from derecho import Client, Context, PostgresStore, Signal, StoreError, WorkflowAlreadyRunning, WorkflowNotFound
from tests.activities.kit import engine
from tests.postgres.test_transactions import Books
from tests.postgres.test_transactions import books as books
from tests.postgres.test_transactions import database as database
from tests.support.schemas import Janitor

go = Signal("go", str)
ROW = "INSERT INTO bookings VALUES (1)"


@derecho.workflow
async def greeting(ctx: Context, name: str) -> str:
    return f"hello {name}"


@derecho.workflow
async def waits(ctx: Context) -> str:
    return await ctx.signals(go).receive()


@pytest.fixture
async def mine(postgres_url: str) -> AsyncIterator[Any]:
    """A connection of the user's."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


def engine_that_only_hears(store: PostgresStore, workflow: derecho.Workflow[..., Any]) -> derecho.Engine:
    """It does not look without a hint, and nobody but the user knows when they commit."""
    made = engine(store, workflow)
    made.poll_interval = 1e4
    return made


async def test_a_workflow_starts_with_the_users_commit(database: PostgresStore, books: Books, mine: Any) -> None:
    async with engine_that_only_hears(database, greeting) as running:
        async with mine.transaction():
            await mine.execute(ROW)
            handle = await running.client.within(mine).start(greeting.bind("Ann"), id="ann")
            with pytest.raises(WorkflowNotFound):
                await running.client.get(greeting, "ann").describe()
        assert await running.client.get(greeting, "ann").result(timeout=20) == "hello Ann"
        assert (await handle.describe()).run_id == handle.run_id
    assert books.booked == [1]


async def test_a_workflow_is_gone_with_the_users_rollback(database: PostgresStore, books: Books, mine: Any) -> None:
    transaction = mine.transaction()
    await transaction.start()
    await mine.execute(ROW)
    await Client(database).within(mine).start(greeting.bind("Ann"), id="ann")
    await transaction.rollback()
    assert await database.find_run("ann") is None
    assert books.booked == []


async def test_a_workflow_is_gone_with_the_users_session(database: PostgresStore, books: Books, mine: Any) -> None:
    """Whoever is killed before the commit has done nothing."""
    await mine.transaction().start()
    await mine.execute(ROW)
    await Client(database).within(mine).start(greeting.bind("Ann"), id="ann")
    books.cut(await mine.fetchval("SELECT pg_backend_pid()"))
    assert await database.find_run("ann") is None
    assert books.booked == []
    await Client(database).start(greeting.bind("Ann"), id="ann")


async def test_a_signal_arrives_with_the_users_commit_and_not_before(
    database: PostgresStore, books: Books, mine: Any
) -> None:
    async with engine_that_only_hears(database, waits) as running:
        handle = await running.client.start(waits.bind(), id="w")
        async with mine.transaction():
            await mine.execute(ROW)
            await running.client.within(mine).get(waits, "w").signal(go, "now", key="once")
            assert (await database.pending(handle.run_id)).messages == []
        assert await handle.result(timeout=20) == "now"
    assert books.booked == [1]


async def test_a_connection_of_a_pool_will_do(database: PostgresStore, books: Books, postgres_url: str) -> None:
    pool = await asyncpg.create_pool(postgres_url, min_size=1, max_size=1)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(ROW)
        await Client(database).within(connection).start(greeting.bind("Ann"), id="ann")
    await pool.close()
    assert await database.find_run("ann") is not None


async def test_an_id_that_is_taken_leaves_the_users_transaction_alone(
    database: PostgresStore, books: Books, mine: Any
) -> None:
    client = Client(database)
    await client.start(waits.bind(), id="w")
    async with mine.transaction():
        with pytest.raises(WorkflowAlreadyRunning):
            await client.within(mine).start(greeting.bind("Ann"), id="w")
        await mine.execute(ROW)
    assert books.booked == [1]


async def test_of_two_transactions_that_start_one_id_the_second_is_told(
    database: PostgresStore, mine: Any, postgres_url: str
) -> None:
    client = Client(database)
    other: Any = await asyncpg.connect(postgres_url)
    transaction = mine.transaction()
    await transaction.start()
    await other.transaction().start()
    await client.within(mine).start(greeting.bind("Ann"), id="ann")
    second = asyncio.create_task(client.within(other).start(greeting.bind("Bob"), id="ann"))
    await asyncio.sleep(0)
    await transaction.commit()
    with pytest.raises(WorkflowAlreadyRunning):
        await asyncio.wait_for(second, 20)
    await other.close()


async def test_what_it_cannot_write_through_is_refused_by_name(
    database: PostgresStore, books: Books, mine: Any, janitor: Janitor
) -> None:
    client = Client(database)
    with pytest.raises(StoreError, match="needs an open transaction"):
        await client.within(mine).start(greeting.bind("Ann"))
    with pytest.raises(StoreError, match=r"through a builtins\.str: .* a connection of asyncpg's"):
        await client.within("a connection").start(greeting.bind("Ann"))
    await mine.transaction().start()
    with pytest.raises(asyncpg.UndefinedTableError):
        await mine.execute("SELECT FROM nowhere")
    with pytest.raises(StoreError, match="could not write through this connection: current transaction is aborted"):
        await client.within(mine).start(greeting.bind("Ann"))


async def test_a_connection_to_another_database_is_refused(
    database: PostgresStore, janitor: Janitor, postgres_url: str
) -> None:
    janitor.execute("CREATE DATABASE elsewhere")
    try:
        elsewhere: Any = await asyncpg.connect(postgres_url, database="elsewhere")
        await elsewhere.transaction().start()
        with pytest.raises(StoreError, match=r"could not write through this connection: .* does not exist"):
            await Client(database).within(elsewhere).start(greeting.bind("Ann"))
        await elsewhere.close()
    finally:
        janitor.execute("DROP DATABASE elsewhere WITH (FORCE)")
