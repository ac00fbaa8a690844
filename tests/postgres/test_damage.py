"""A page that the server cannot read concerns the runs on it, and no others."""

from collections.abc import Iterator

import pytest

import derecho
from derecho import Client, Context, PostgresStore, Signal
from derecho.journal.model import RunRow
from tests.support.schemas import Janitor
from tests.support.world import engine_of, eventually

go = Signal("go", int)

# What a damaged page says, said by a view in the place of the table.
DAMAGE = """
CREATE FUNCTION {schema}.can_be_read(run_id text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF run_id = '{run_id}' THEN RAISE 'invalid page in block 7 of relation base/1/2' USING ERRCODE = 'XX001'; END IF;
    RETURN true;
END $$;
ALTER TABLE {schema}.history RENAME TO kept;
CREATE VIEW {schema}.history AS SELECT * FROM {schema}.kept WHERE {schema}.can_be_read(run_id)
"""
REPAIR = """
DROP VIEW {schema}.history;
ALTER TABLE {schema}.kept RENAME TO history;
DROP FUNCTION {schema}.can_be_read(text)
"""


@derecho.workflow
async def waits(ctx: Context) -> int:
    return await ctx.signals(go).receive()


@pytest.fixture
def mended(janitor: Janitor, shared_schema: str) -> Iterator[list[str]]:
    """What has to be done before the schema is used again."""
    left: list[str] = []
    yield left
    for statements in left:
        janitor.execute(statements)


async def test_a_run_whose_history_cannot_be_read_is_blocked_and_goes_on_when_it_can(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, mended: list[str]
) -> None:
    store = PostgresStore(empty_schema_url)
    async with engine_of(store, waits, cache_size=0) as engine, Client(store) as client:
        handle = await client.start(waits.bind(), id="w")

        async def asleep() -> RunRow | None:
            found = await store.find_run("w")
            return found if found is not None and found.tasks == 1 and found.claim is None else None

        row = await eventually(asleep)
        await eventually(lambda: engine.workflows.runs.get(row.run_id) is None)
        janitor.execute(DAMAGE.format(schema=shared_schema, run_id=row.run_id))
        mended.append(REPAIR.format(schema=shared_schema))
        await handle.signal(go, 7)

        async def reason() -> str | None:
            return (await handle.describe()).blocked_reason

        assert "XX001" in await eventually(reason)
        other = await client.start(waits.bind(), id="other")
        await other.signal(go, 8)
        assert await other.result(timeout=20) == 8
        janitor.execute(mended.pop())
        assert await handle.result(timeout=30) == 7
    await store.close()
