"""Work costs what it costs, however many runs are stored or asleep."""

import asyncio
import os

import asyncpg

from derecho import Context, Engine, PostgresStore, activity, workflow
from derecho.stores.postgres import address as addresses
from tests.postgres.test_plans import FILL
from tests.support.world import eventually

ROWS = int(os.environ.get("DERECHO_ROWS", "30000"))
WORKFLOWS, ACTIVITIES = 30, 5

READ = """
SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = $1)
    + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = $1)
"""
UPDATED = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 'live'"


@activity
async def double(number: int) -> int:
    return 2 * number


@workflow
async def doubled(ctx: Context, count: int) -> int:
    return sum([await double.execute(ctx, number) for number in range(count)])


class Database:
    """One schema, its statistics, and an engine at work in it."""

    def __init__(self, url: str, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._url = url
        self._connection = connection
        self._schema = addresses.parse(url, "").schema

    async def fill(self, rows: int) -> None:
        store = PostgresStore(self._url)
        await store.open()
        await store.close()
        await self._connection.execute(addresses.parse(self._url, "").in_schema(FILL.replace("$rows", str(rows))))
        await self._connection.execute("ANALYZE")

    async def work(self) -> None:
        """Some workflows, one after another: commits are then the same each time. Its statistics are complete."""
        store = PostgresStore(self._url)
        async with Engine(store, workflows=[doubled], activities=[double], lease=1000.0) as engine:
            for number in range(WORKFLOWS):
                assert await engine.client.run(doubled.bind(ACTIVITIES), id=f"new-{number}") == 20
        await store.close()
        await eventually(self._is_alone)

    async def _is_alone(self) -> bool:
        """A session adds what it did to the statistics when it ends."""
        others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'derecho'"
        return bool(await self._connection.fetchval(others) == 0)

    async def rows_read(self) -> int:
        return int(await self._connection.fetchval(READ, self._schema))

    async def updates(self) -> tuple[int, int]:
        all_, hot = await self._connection.fetchrow(UPDATED, self._schema) or (0, 0)
        return all_, hot


async def read_by_work(url: str, postgres_url: str, rows: int) -> int:
    connection = await asyncpg.connect(postgres_url)
    try:
        database = Database(url, connection)
        await database.fill(rows)
        await eventually(database._is_alone)
        before = await database.rows_read()
        await database.work()
        return await database.rows_read() - before
    finally:
        await asyncio.wait_for(connection.close(), 5)


async def test_work_reads_no_more_rows_when_more_are_stored(schema_url: str, postgres_url: str) -> None:
    few = await read_by_work(schema_url, postgres_url, 1)
    many = await read_by_work(schema_url.replace("schema=t_", "schema=u_"), postgres_url, ROWS)
    done = WORKFLOWS * (1 + ACTIVITIES)
    assert few <= 20 * done, "this is what to compare with"
    assert many <= 1.2 * few + done


async def test_a_run_is_updated_in_place_but_when_it_is_claimed_or_let_go(schema_url: str, postgres_url: str) -> None:
    """Without a new entry in any index, and on the same page: the fill factor leaves room for that."""
    connection = await asyncpg.connect(postgres_url)
    try:
        database = Database(schema_url, connection)
        await database.fill(10)
        await database.work()
        updates, in_place = await database.updates()
        assert updates >= WORKFLOWS * (ACTIVITIES - 1)  # the last turn removes the row
        assert updates - in_place <= WORKFLOWS
    finally:
        await asyncio.wait_for(connection.close(), 5)
