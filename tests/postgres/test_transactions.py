"""The user's rows and the outcome are one commit on PostgreSQL, whatever is lost in the midst of it."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import derecho
from derecho import Context, Engine, PostgresStore, RetryPolicy, StoreError
from derecho.errors import StoreUnavailable
from derecho.journal.changes import Conflict, Deliver, FinishActivity, NewMessage, RegisterWorker, Transition
from derecho.journal.model import WorkerRow
from tests.activities.kit import Probe, calling, engine, failure_of, probe
from tests.postgres.proxy import Proxy, Where
from tests.postgres.test_lost_connections import once, socket_of, through
from tests.support.schemas import Janitor

CUTS = int(os.environ.get("DERECHO_CUTS", "18"))
AT_ONCE = RetryPolicy(initial_interval=0)


class Books:
    """A table of the user's."""

    def __init__(self, janitor: Janitor) -> None:
        self._janitor = janitor
        janitor.execute("DROP TABLE IF EXISTS bookings; CREATE TABLE bookings (number bigint)")

    @property
    def booked(self) -> list[int]:
        return [row[0] for row in self._janitor.fetch("SELECT number FROM bookings ORDER BY number")]

    def cut(self, pid: int) -> None:
        """End a session as an administrator does."""
        assert self._janitor.fetch("SELECT pg_terminate_backend($1, 10000)", pid)[0][0]


@pytest.fixture
def books(janitor: Janitor) -> Iterator[Books]:
    yield Books(janitor)
    janitor.execute("DROP TABLE bookings")


@pytest.fixture
async def database(empty_schema_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(empty_schema_url)
    yield store
    await store.close()


@derecho.activity(transactional=True, retry=AT_ONCE)
async def book(number: int, fail_at: int = 0) -> int:
    connection = derecho.current_activity().transaction
    await connection.execute("INSERT INTO bookings VALUES ($1)", (number,))
    if probe().enter().attempt == fail_at:
        raise ValueError("after the row")
    [[count]] = await connection.execute("SELECT count(*) FROM bookings")
    return int(count)


async def book_in_run(connection: Any, number: int, fail: bool = False) -> int:
    await connection.executemany("INSERT INTO bookings VALUES ($1)", [(number,)])
    if fail:
        raise ValueError("after the row")
    return number


@derecho.workflow
async def books_once(ctx: Context, number: int) -> int:
    return await ctx.transaction(book_in_run, number)


@derecho.activity(transactional=True, retry=AT_ONCE)
async def book_quietly(number: int) -> int:
    await derecho.current_activity().transaction.execute("INSERT INTO bookings VALUES ($1)", (number,))
    return number


@derecho.workflow
async def calls(ctx: Context, number: int) -> int:
    return await book_quietly.execute(ctx, number)


async def test_a_transactional_activity_writes_its_rows_once_with_its_outcome(
    database: PostgresStore, books: Books
) -> None:
    async with engine(database, caller := calling(book.bind(7, 1)), book) as running:
        assert await running.client.run(caller.bind()) == 1
    assert books.booked == [7], "the rows of the attempt that failed are gone"


async def test_a_transaction_of_the_run_is_undone_by_what_it_raises(database: PostgresStore, books: Books) -> None:
    @derecho.workflow
    async def both(ctx: Context) -> list[Any]:
        try:
            await ctx.transaction(book_in_run, 1, fail=True)
        except ValueError as exc:
            return [str(exc), await ctx.transaction(book_in_run, 2)]
        return []

    async with engine(database, both) as running:
        handle = await running.client.start(both.bind())
        assert await handle.result(timeout=20) == ["after the row", 2]
        derecho.replay(both, await handle.history())
    assert books.booked == [2]


async def test_an_attempt_whose_session_ends_leaves_no_row_and_is_made_again(
    database: PostgresStore, books: Books
) -> None:
    @derecho.activity(transactional=True, retry=AT_ONCE)
    async def cut_once(number: int) -> int:
        connection = derecho.current_activity().transaction
        await connection.execute("INSERT INTO bookings VALUES ($1)", (number,))
        [[pid]] = await connection.execute("SELECT pg_backend_pid()")
        if probe().enter().attempt == 1:
            await asyncio.to_thread(books.cut, pid)
        return number

    seen = Probe()
    async with engine(database, caller := calling(cut_once.bind(7)), cut_once, probe=seen) as running:
        assert await running.client.run(caller.bind()) == 7
    assert [attempt.attempt for attempt in seen.attempts] == [1, 2]
    assert books.booked == [7]


@pytest.mark.parametrize("swallowed", [False, True], ids=["told", "swallowed"])
async def test_a_run_does_not_see_that_the_session_of_its_transaction_ended(
    database: PostgresStore, books: Books, swallowed: bool
) -> None:
    tries: list[int] = []

    async def cut_once(connection: Any) -> int:
        await connection.execute("INSERT INTO bookings VALUES (7)")
        [[pid]] = await connection.execute("SELECT pg_backend_pid()")
        tries.append(pid)
        if len(tries) == 1:
            await asyncio.to_thread(books.cut, pid)
            try:
                await connection.execute("SELECT 1")
            except Exception:
                if not swallowed:
                    raise
        return len(tries)

    @derecho.workflow
    async def untroubled(ctx: Context) -> int:
        return await ctx.transaction(cut_once)

    async with engine(database, untroubled) as running:
        handle = await running.client.start(untroubled.bind())
        assert await handle.result(timeout=20) == 2
        derecho.replay(untroubled, await handle.history())
    assert books.booked == [7]


@pytest.mark.parametrize("workflow", [books_once, calls], ids=["transaction", "activity"])
@pytest.mark.parametrize("where", ["before", "after"])
async def test_rows_are_written_once_wherever_the_connection_is_cut(
    empty_schema_url: str, books: Books, where: Where, workflow: derecho.Workflow[[int], int]
) -> None:
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        url = through(proxy, empty_schema_url)
        async with Engine(url, workflows=[books_once, calls], activities=[book_quietly]) as running:
            for number in range(CUTS):
                handle = await running.client.start(workflow.bind(number))
                proxy.strike = strike_once(where, number)
                assert await handle.result(timeout=60) == number
                proxy.strike = lambda sql: None
                derecho.replay(workflow, await handle.history())
        assert books.booked == list(range(CUTS))
        assert proxy.struck[where] >= CUTS // 2, f"only {proxy.struck} of {CUTS} cuts landed"


def strike_once(where: Where, number: int) -> Callable[[str], Where | None]:
    """Strike the n-th of the statements that come, or every third time the one that ends a transaction."""
    skipped = itertools.count(number % 9)
    at_commit = number % 3 == 2
    left = [where]

    def strike(sql: str) -> Where | None:
        is_it = sql.startswith("COMMIT") if at_commit else next(skipped) >= 9
        return left.pop() if is_it and left else None

    return strike


async def test_whoever_waits_for_runs_looks_again_when_the_answer_of_a_transaction_is_lost(
    empty_schema_url: str,
) -> None:
    async def work(connection: Any) -> Transition:
        return (RegisterWorker(WorkerRow("w", "w", 0, [])),)

    async with Proxy(socket_of(empty_schema_url)) as proxy:
        store = PostgresStore(through(proxy, empty_schema_url))
        await store.open()
        before = store.seen("runs")
        proxy.strike = once("after", lambda sql: sql.startswith("COMMIT"))
        with pytest.raises(StoreUnavailable):
            await store.transact(work)
        assert store.seen("runs") > before
        await store.close()


async def test_a_superseded_attempt_writes_nothing(database: PostgresStore, books: Books) -> None:
    async def late(connection: Any) -> Transition:
        await connection.execute("INSERT INTO bookings VALUES (99)")
        return (FinishActivity("run", 4, "a claim of yesterday"),)

    assert await database.transact(late) == Conflict("not_found")
    assert books.booked == []


async def test_the_rows_of_a_run_that_was_closed_meanwhile_are_not_written(
    database: PostgresStore, books: Books
) -> None:
    async with engine(database, books_once) as running:
        handle = await running.client.start(books_once.bind(1))
        await handle.result(timeout=20)

        async def late(connection: Any) -> Transition:
            await connection.execute("INSERT INTO bookings VALUES (99)")
            return (Deliver(NewMessage("{}"), run_id=handle.run_id, drop=True),)

        assert isinstance(await database.transact(late), Conflict)
    assert books.booked == [1]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("COMMIT", "begin or end"),
        ("  -- done\n /* really */ commit;", "begin or end"),
        ("ROLLBACK", "begin or end"),
        ("SAVEPOINT s", "begin or end"),
        ("SET synchronous_commit = off", "set something"),
        ("DELETE FROM {schema}.history", "Derecho's own tables"),
        ('update only "{schema}".runs SET status = status', "Derecho's own tables"),
        ("WITH gone AS (DELETE FROM {schema}.inbox RETURNING 1) SELECT * FROM gone", "Derecho's own tables"),
    ],
)
async def test_the_function_cannot_end_the_transaction_nor_write_our_tables(
    database: PostgresStore, books: Books, shared_schema: str, statement: str, reason: str
) -> None:
    @derecho.activity(transactional=True, retry=RetryPolicy.none())
    async def misbehave() -> None:
        connection = derecho.current_activity().transaction
        await connection.execute("INSERT INTO bookings VALUES (1)")
        await connection.execute(statement.format(schema=shared_schema))

    async with engine(database, caller := calling(misbehave.bind()), misbehave) as running:
        error = await failure_of(await running.client.start(caller.bind()))
    assert isinstance(error, StoreError)
    assert reason in str(error)
    assert books.booked == []


async def test_it_may_read_our_tables(database: PostgresStore, books: Books, shared_schema: str) -> None:
    async def look(connection: Any) -> int:
        return len(await connection.execute(f"SELECT FROM {shared_schema}.runs"))

    @derecho.workflow
    async def looks(ctx: Context) -> int:
        return await ctx.transaction(look)

    async with engine(database, looks) as running:
        assert await running.client.run(looks.bind()) == 1


async def test_a_connection_is_good_only_inside_its_function(database: PostgresStore) -> None:
    kept: list[Any] = []

    @derecho.activity(transactional=True)
    async def keep() -> None:
        kept.append(derecho.current_activity().transaction)

    async with engine(database, caller := calling(keep.bind()), keep) as running:
        await running.client.run(caller.bind())
        with pytest.raises(StoreError, match="has ended"):
            await kept[0].execute("SELECT 1")
