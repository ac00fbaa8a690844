"""A server at its limits: locks held too long, no free connection, sessions that idle. Work goes on."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

import derecho
from derecho import Client, Context, Engine
from derecho.stores.postgres import hosts
from tests.postgres.load import Load, double, order
from tests.support.schemas import Janitor
from tests.support.world import eventually


def said(caplog: pytest.LogCaptureFixture, state: str) -> int:
    return sum(state in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("setting", "state"), [("statement_timeout", "57014"), ("lock_timeout", "55P03")])
async def test_statements_that_take_too_long_are_done_again(
    empty_schema_url: str,
    postgres_url: str,
    shared_schema: str,
    setting: str,
    state: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "derecho")
    monkeypatch.setattr(hosts, "SETTINGS", {**hosts.SETTINGS, setting: "100"})
    holder: Any = await asyncpg.connect(postgres_url)
    engine = Engine(empty_schema_url, workflows=[order], activities=[double])
    async with engine, Client(empty_schema_url) as client:
        load = Load(client)
        async with load.running():
            for turn in range(3):
                await load.progress()
                await load.fault(setting)
                async with holder.transaction():
                    await holder.execute(f"LOCK TABLE {shared_schema}.live")
                    await eventually(lambda turn=turn: said(caplog, state) > turn)
        await load.check(3, floor=0.5)
    await holder.close()


@pytest.fixture
def limited_url(empty_schema_url: str, janitor: Janitor, shared_schema: str) -> Iterator[str]:
    """The same schema for a role whose connections are limited."""
    role = f"few_{shared_schema}"
    janitor.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {shared_schema} TO {role}")
    janitor.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {shared_schema} TO {role}")
    yield empty_schema_url.replace("//derecho@", f"//{role}@")
    janitor.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_an_engine_without_a_free_connection_waits_for_one(
    limited_url: str, empty_schema_url: str, janitor: Janitor, shared_schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "derecho")
    role = f"few_{shared_schema}"
    engine = Engine(limited_url, workflows=[order], activities=[double])
    async with engine, Client(empty_schema_url) as client:
        load = Load(client)
        async with load.running():
            for turn in range(3):
                await load.progress()
                await load.fault("no connection")
                janitor.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
                janitor.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
                with pytest.raises(asyncpg.TooManyConnectionsError):
                    await asyncpg.connect(limited_url.partition("&schema=")[0])
                await eventually(lambda turn=turn: said(caplog, "could not ") > turn)
                janitor.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        await load.check(3)
    assert Counter(record.levelname for record in caplog.records)["ERROR"] == 0, "nothing is lost by that"


async def test_a_transactional_activity_may_think_longer_than_a_session_may_idle(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "SETTINGS", {**hosts.SETTINGS, "idle_in_transaction_session_timeout": "500"})
    table = f"thoughts_{shared_schema}"  # not in our schema
    janitor.execute(f"DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (n int)")

    @derecho.activity(transactional=True)
    async def think(n: int) -> None:
        connection = derecho.current_activity().transaction
        await asyncio.sleep(0.8)
        await connection.execute(f"INSERT INTO {table} VALUES ($1)", (n,))

    @derecho.workflow
    async def thinker(ctx: Context, n: int) -> None:
        await think.execute(ctx, n)

    async with Engine(empty_schema_url, workflows=[thinker], activities=[think]) as engine:
        await engine.client.run(thinker.bind(7), id="t")
        history = await engine.client.get(thinker, "t").history()
    assert [row[0] for row in janitor.fetch(f"SELECT n FROM {table}")] == [7]
    assert sum(event["type"] == "activity_scheduled" for event in history) == 1
    janitor.execute(f"DROP TABLE {table}")
