"""The schema is made once however many start, is refused when it is newer, and needs no owner once it is there."""

import asyncio

import pytest

from derecho import PostgresStore
from derecho.errors import StoreError
from derecho.journal.changes import CreateRun, Receipt
from derecho.testing.conformance.kit import message, run_row
from tests.support.schemas import Janitor


async def test_ten_engines_that_start_at_once_make_one_schema(schema_url: str) -> None:
    stores = [PostgresStore(schema_url) for _ in range(10)]
    await asyncio.gather(*(store.open() for store in stores))
    for number, store in enumerate(stores):
        (result,) = await store.commit([(CreateRun(run_row(number), (message(),)),)])
        assert isinstance(result, Receipt)
        await store.close()


async def test_a_schema_that_is_newer_than_the_code_is_refused(schema_url: str, janitor: Janitor) -> None:
    running = PostgresStore(schema_url)
    await running.open()
    schema = schema_url.partition("schema=")[2].partition("&")[0]
    janitor.execute(f"INSERT INTO {schema}.migrations (number, name) VALUES (999, '0999_later')")
    with pytest.raises(StoreError, match="has migration 999, made by a newer release of Derecho"):
        await PostgresStore(schema_url).open()
    (result,) = await running.commit([(CreateRun(run_row(), (message(),)),)])
    assert isinstance(result, Receipt), "an engine that runs already goes on"
    await running.close()


async def test_a_server_that_may_forget_is_refused_unless_that_is_wanted(schema_url: str, janitor: Janitor) -> None:
    if janitor.fetch("SHOW fsync")[0][0] == "on":
        pytest.skip("this server is durable")
    with pytest.raises(StoreError, match="may forget what it acknowledged, because fsync"):
        await PostgresStore(schema_url.replace("&durable=off", "")).open()


async def test_a_role_that_may_only_work_can_work(schema_url: str, janitor: Janitor) -> None:
    role = f"worker_{schema_url.partition('schema=')[2][:14]}"
    janitor.execute(f"CREATE ROLE {role} LOGIN")
    mine = schema_url.replace("//derecho@", f"//{role}@")
    try:
        with pytest.raises(StoreError, match="this role may not change it"):
            await PostgresStore(mine).open()
        owner = PostgresStore(schema_url)
        await owner.open()
        await owner.close()
        schema = schema_url.partition("schema=")[2].partition("&")[0]
        janitor.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        janitor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
        store = PostgresStore(mine)
        (result,) = await store.commit([(CreateRun(run_row(), (message(),)),)])
        assert isinstance(result, Receipt)
        await store.close()
    finally:
        janitor.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
