"""The user's rows and the outcome in one commit: never one without the other. (G18b)"""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import derecho
from derecho import Context, MemoryStore, RetryPolicy, StoreError
from derecho.journal.changes import Conflict, Deliver, FinishActivity, NewMessage, Transition
from derecho.stores.sqlite import SQLiteStore
from tests.activities.kit import calling, engine, failure_of, probe
from tests.support.wrapped import wrapped

NOW = RetryPolicy(initial_interval=0)


@pytest.fixture
async def books(database: SQLiteStore, tmp_path: Path) -> Any:
    """A table of the user's in the store's file; gives a connection to it."""
    await database.open()
    connection = sqlite3.connect(tmp_path / "real.db")
    connection.execute("CREATE TABLE bookings (number INTEGER)")
    connection.commit()
    yield connection
    connection.close()


def booked(books: sqlite3.Connection) -> list[int]:
    return [row[0] for row in books.execute("SELECT number FROM bookings ORDER BY number")]


@derecho.activity(transactional=True, retry=NOW)
async def book(number: int, fail_at: int = 0) -> int:
    connection = derecho.current_activity().transaction
    await connection.execute("INSERT INTO bookings VALUES (?)", (number,))
    attempt = probe().enter().attempt
    if attempt == fail_at:
        raise ValueError("after the row")
    [[count]] = await connection.execute("SELECT count(*) FROM bookings")
    return int(count)


async def book_in_run(connection: Any, number: int, fail: bool = False) -> int:
    await connection.executemany("INSERT INTO bookings VALUES (:number)", [{"number": number}])
    if fail:
        raise ValueError("after the row")
    return number


async def test_a_transactional_activity_writes_its_rows_once_with_its_outcome(
    database: SQLiteStore, books: sqlite3.Connection
) -> None:
    async with engine(database, caller := calling(book.bind(7, 1)), book) as running:
        assert await running.client.run(caller.bind()) == 1
    assert booked(books) == [7], "the rows of the attempt that failed are gone"


async def test_a_transaction_of_the_run_is_undone_by_what_it_raises(
    database: SQLiteStore, books: sqlite3.Connection
) -> None:
    @derecho.workflow
    async def both(ctx: Context) -> list[Any]:
        try:
            await ctx.transaction(book_in_run, 1, fail=True)
        except ValueError as exc:
            return [str(exc), await ctx.transaction(book_in_run, 2)]
        return []

    async with engine(database, both) as running:
        handle = await running.client.start(both.bind())
        assert await handle.result(timeout=10) == ["after the row", 2]
        derecho.replay(both, await handle.history())
    assert booked(books) == [2]


async def test_a_transaction_whose_commit_is_slow_has_not_failed(
    database: SQLiteStore, books: sqlite3.Connection
) -> None:
    """Half a lease is what the user's code may take; a commit that is under way takes effect or does not."""

    async def slow(transact: Any, work: Any) -> Any:
        result = await transact(work)
        await asyncio.sleep(0.6)
        return result

    @derecho.workflow
    async def books_slowly(ctx: Context) -> str:
        try:
            return f"booked {await ctx.transaction(book_in_run, 1)}"
        except derecho.ActivityTimeout:
            await ctx.sleep(0.5)
            return "told that it failed"

    async with engine(wrapped(database, transact=slow), books_slowly, lease=1.0) as running:
        handle = await running.client.start(books_slowly.bind())
        assert await handle.result(timeout=20) == "booked 1"
        assert [event["type"] for event in await handle.history()].count("step_completed") == 1
    assert booked(books) == [1]


async def test_a_transaction_that_takes_too_long_ends_itself(database: SQLiteStore, books: sqlite3.Connection) -> None:
    """It keeps all others from writing, those who judge timeouts among them."""

    @derecho.activity(transactional=True, retry=NOW, start_to_close=0.3)
    async def slow() -> int:
        attempt = probe().enter().attempt
        connection = derecho.current_activity().transaction
        await connection.execute("INSERT INTO bookings VALUES (?)", (attempt,))
        if attempt == 1:
            await asyncio.sleep(60)
        return attempt

    async with engine(database, caller := calling(slow.bind()), slow) as running:
        assert await running.client.run(caller.bind()) == 2
    assert booked(books) == [2]


async def test_a_superseded_attempt_writes_nothing(database: SQLiteStore, books: sqlite3.Connection) -> None:
    """A zombie: its claim is another's by now, so its rows go with its outcome."""

    async def late(connection: Any) -> Transition:
        await connection.execute("INSERT INTO bookings VALUES (99)")
        return (FinishActivity("run", 4, "a claim of yesterday"),)

    assert await database.transact(late) == Conflict("not_found")
    assert booked(books) == []


async def test_the_rows_of_a_run_that_was_closed_meanwhile_are_not_written(
    database: SQLiteStore, books: sqlite3.Connection
) -> None:
    @derecho.workflow
    async def doomed(ctx: Context) -> int:
        return await ctx.transaction(book_in_run, 1)

    async with engine(database, doomed) as running:
        handle = await running.client.start(doomed.bind())
        await handle.result(timeout=10)

        async def late(connection: Any) -> Transition:
            await connection.execute("INSERT INTO bookings VALUES (99)")
            return (Deliver(NewMessage("{}"), run_id=handle.run_id, drop=True),)

        result = await database.transact(late)
    assert isinstance(result, Conflict)
    assert booked(books) == [1]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("COMMIT", "begin or end a transaction"),
        ("ROLLBACK", "begin or end a transaction"),
        ("BEGIN", "begin or end a transaction"),
        ("PRAGMA synchronous = 0", "change a setting"),
        ("DELETE FROM history", "own table 'history'"),
        ("UPDATE runs SET status = 'completed'", "own table 'runs'"),
    ],
)
async def test_the_function_cannot_end_the_transaction_nor_touch_our_tables(
    database: SQLiteStore, books: sqlite3.Connection, statement: str, reason: str
) -> None:
    @derecho.activity(transactional=True, retry=RetryPolicy.none())
    async def misbehave() -> None:
        connection = derecho.current_activity().transaction
        await connection.execute("INSERT INTO bookings VALUES (1)")
        await connection.execute(statement)

    async with engine(database, caller := calling(misbehave.bind()), misbehave) as running:
        error = await failure_of(await running.client.start(caller.bind()))
    assert isinstance(error, StoreError)
    assert reason in str(error)
    assert booked(books) == []


async def test_a_connection_is_good_only_inside_its_function(database: SQLiteStore, books: sqlite3.Connection) -> None:
    kept: list[Any] = []

    @derecho.activity(transactional=True)
    async def keep() -> None:
        kept.append(derecho.current_activity().transaction)

    async with engine(database, caller := calling(keep.bind()), keep) as running:
        await running.client.run(caller.bind())
        with pytest.raises(StoreError, match="has ended"):
            await kept[0].execute("SELECT 1")


async def test_a_store_without_tables_says_so() -> None:
    store = MemoryStore()
    caller = calling(book.bind(1), retry=RetryPolicy.none())
    async with engine(store, caller, book) as running:
        error = await failure_of(await running.client.start(caller.bind()))
        assert "Use SQLiteStore" in str(error)
        with pytest.raises(StoreError, match="Use SQLiteStore"):
            await running.client.within(object()).start(caller.bind())


def test_only_a_coroutine_can_be_transactional() -> None:
    with pytest.raises(derecho.DefinitionError, match="needs an async def"):

        @derecho.activity(transactional=True)
        def plain() -> None: ...


# --- client.within ----------------------------------------------------------------------------------------------------


@derecho.workflow
async def greeting(ctx: Context, name: str) -> str:
    return f"hello {name}"


async def test_a_workflow_starts_with_the_users_commit(database: SQLiteStore, books: sqlite3.Connection) -> None:
    async with engine(database, greeting) as running:
        books.execute("INSERT INTO bookings VALUES (1)")
        handle = await running.client.within(books).start(greeting.bind("Ann"), id="ann")
        with pytest.raises(derecho.WorkflowNotFound):
            await running.client.get(greeting, "ann").describe()
        books.commit()
        assert await running.client.get(greeting, "ann").result(timeout=10) == "hello Ann"
        assert (await handle.describe()).run_id == handle.run_id


async def test_a_workflow_is_gone_with_the_users_rollback(database: SQLiteStore, books: sqlite3.Connection) -> None:
    books.execute("INSERT INTO bookings VALUES (1)")
    await derecho.Client(database).within(books).start(greeting.bind("Ann"), id="ann")
    books.rollback()
    assert await database.find_run("ann") is None
    assert booked(books) == []


async def test_within_begins_a_transaction_if_the_user_has_not(
    database: SQLiteStore, books: sqlite3.Connection
) -> None:
    await derecho.Client(database).within(books).start(greeting.bind("Ann"), id="ann")
    assert books.in_transaction
    books.rollback()
    assert await database.find_run("ann") is None


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "other.db")
    yield connection
    connection.close()


async def test_within_refuses_what_it_cannot_write_through(
    database: SQLiteStore, books: sqlite3.Connection, foreign: sqlite3.Connection
) -> None:
    client = derecho.Client(database)
    with pytest.raises(StoreError, match=r"other\.db, not to"):
        await client.within(foreign).start(greeting.bind("Ann"))
    with pytest.raises(StoreError, match=r"takes an sqlite3\.Connection"):
        await client.within("a connection").start(greeting.bind("Ann"))
    books.isolation_level = None
    with pytest.raises(StoreError, match="autocommit"):
        await client.within(books).start(greeting.bind("Ann"))


async def test_within_takes_a_connection_with_a_row_factory(database: SQLiteStore, books: sqlite3.Connection) -> None:
    books.row_factory = sqlite3.Row
    await derecho.Client(database).within(books).start(greeting.bind("Ann"), id="ann")
    assert books.row_factory is sqlite3.Row
    books.commit()
    assert await database.find_run("ann") is not None
