"""The schema is made once however many start, is refused when it is newer, and needs no owner once it is there."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from derecho import PostgresStore
from derecho.errors import StoreError
from derecho.journal.changes import CreateRun, Receipt
from derecho.testing.conformance.kit import message, run_row
from tests.support.postgres import own_server
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


async def test_the_deciding_clock_moves_on_while_a_transaction_waits(janitor: Janitor, shared_schema: str) -> None:
    [row] = janitor.fetch(
        f"WITH before AS MATERIALIZED (SELECT {shared_schema}.instant() AS at), "
        "slept AS MATERIALIZED (SELECT at, pg_sleep(0.01) FROM before) "
        f"SELECT at AS before, {shared_schema}.instant() AS after FROM slept"
    )
    assert row["after"] - row["before"] >= 10_000


@pytest.fixture(scope="module")
def a_server(postgres_url: str) -> Iterator[Janitor]:
    """A server whose settings may be changed. Wants `postgres_url` so that a missing PostgreSQL is said once."""
    with own_server() as url:
        janitor = Janitor(url)
        yield janitor
        janitor.close()


def change(server: Janitor, **settings: str) -> None:
    """Make these settings hold for the sessions to come."""
    for name, value in settings.items():
        server.execute(f"ALTER SYSTEM SET {name} = {value}")
    server.execute("SELECT pg_reload_conf()")
    while any(server.fetch(f"SHOW {name}")[0][0] != value for name, value in settings.items()):
        time.sleep(0.01)


@pytest.mark.parametrize("prepared", ["on", "off"])
@pytest.mark.parametrize(
    ("settings", "weak"),
    [
        ({"fsync": "off", "full_page_writes": "on"}, "fsync"),
        ({"fsync": "on", "full_page_writes": "off"}, "full_page_writes"),
        ({"fsync": "off", "full_page_writes": "off"}, "fsync and full_page_writes"),
    ],
)
async def test_a_server_that_may_forget_is_refused_unless_that_is_wanted(
    a_server: Janitor, settings: dict[str, str], weak: str, prepared: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(a_server, **settings)
    with pytest.raises(StoreError, match=f"may forget what it acknowledged, because {weak} is not on: .* durable=off"):
        await PostgresStore(f"{a_server.url}&prepared={prepared}").open()
    accepted = PostgresStore(f"{a_server.url}&prepared={prepared}&durable=off")
    await accepted.open()
    await accepted.close()
    assert f"at a power cut: {weak} is not on" in caplog.text


async def test_a_server_that_keeps_what_it_acknowledged_is_taken(a_server: Janitor) -> None:
    change(a_server, fsync="on", full_page_writes="on")
    store = PostgresStore(a_server.url)
    await store.open()
    await store.close()


@pytest.mark.parametrize("weak", ["off", "local", "remote_write"])
async def test_a_commit_that_is_not_waited_for_is_mended_where_that_can_be_and_refused_elsewhere(
    a_server: Janitor, weak: str
) -> None:
    change(a_server, fsync="on", full_page_writes="on")
    a_server.execute(f"ALTER ROLE derecho SET synchronous_commit = {weak}")
    try:
        store = PostgresStore(a_server.url)
        await store.open()
        [[setting]] = await store._read("SHOW synchronous_commit")
        assert setting == "on"
        await store.close()
        with pytest.raises(StoreError, match="because synchronous_commit is not on"):
            await PostgresStore(f"{a_server.url}&prepared=off").open()
    finally:
        a_server.execute("ALTER ROLE derecho RESET synchronous_commit")


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
