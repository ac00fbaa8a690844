"""Behind a pooler in transaction mode, where nothing of a session stays, everything works with `prepared=off`."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from derecho import Client, Engine
from derecho.errors import StoreError
from derecho.stores.postgres import hosts
from tests.postgres.load import GO, double, order
from tests.support.postgres import run_unprivileged

PORT = 6543
PGBOUNCER = os.environ.get("DERECHO_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


NOTHING_IS_KEPT = """
DO $$BEGIN
    IF EXISTS (SELECT FROM pg_prepared_statements) OR EXISTS (SELECT pg_listening_channels())
        OR EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')
    THEN RAISE 'the session keeps something'; END IF;
END$$
"""


class Forgetful(hosts._Learned):
    """A session that may keep nothing after a transaction, and of which nothing is left."""

    kept = 0

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await self._forget(await super().execute(*args, **kwargs))

    async def _execute(self, *args: Any, **kwargs: Any) -> Any:
        return await self._forget(await super()._execute(*args, **kwargs))

    async def _forget(self, result: Any) -> Any:
        if not self.is_in_transaction():
            try:
                await super().execute(NOTHING_IS_KEPT)
            except asyncpg.RaiseError:
                Forgetful.kept += 1
                raise
            await super().execute("DISCARD ALL")
        return result


@pytest.fixture
def forgetful_url(empty_schema_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(hosts, "_Learned", Forgetful)
    monkeypatch.setattr(Forgetful, "kept", 0)
    return empty_schema_url


@pytest.fixture
def pooled_url(empty_schema_url: str) -> Iterator[str]:
    if PGBOUNCER is None:
        pytest.skip("no pgbouncer is installed here")
    with bouncer(empty_schema_url) as url:
        yield url


@contextmanager
def bouncer(url: str) -> Iterator[str]:
    """The same schema through two server sessions that all clients share."""
    assert PGBOUNCER is not None
    directory = Path(parse_qs(urlsplit(url).query)["host"][0])
    config = directory / "pgbouncer.ini"
    config.write_text(
        f"""
[databases]
postgres = host={directory} dbname=postgres user=derecho
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {directory}
auth_type = any
pool_mode = transaction
default_pool_size = 2
min_pool_size = 2
server_reset_query =
"""
    )
    config.chmod(0o644)
    run = run_unprivileged(directory)
    libraries = os.environ.get("LD_LIBRARY_PATH", "")
    run["env"] = {**run["env"], "LD_LIBRARY_PATH": libraries}
    process = subprocess.Popen([PGBOUNCER, "-q", config], stderr=subprocess.DEVNULL, **run)
    while not (directory / f".s.PGSQL.{PORT}").exists():
        assert process.poll() is None, "pgbouncer does not start"
        time.sleep(0.01)
    schema = parse_qs(urlsplit(url).query)["schema"][0]
    yield f"postgresql://derecho@/postgres?host={directory}&port={PORT}&schema={schema}&durable=off"
    process.terminate()
    process.wait(10)


async def test_two_engines_work_behind_a_pooler(pooled_url: str) -> None:
    await two_engines_work(f"{pooled_url}&prepared=off")


async def test_two_engines_keep_nothing_in_a_session(forgetful_url: str) -> None:
    await two_engines_work(f"{forgetful_url}&prepared=off")
    assert Forgetful.kept == 0


async def two_engines_work(url: str) -> None:
    definitions = {"workflows": [order], "activities": [double]}
    async with Engine(url, **definitions) as one, Engine(url, **definitions) as two, Client(url) as client:  # type: ignore[arg-type]  # the same options twice
        for number in range(30):
            handle = await client.start(order.bind(number), id=f"w{number}")
            await handle.signal(GO, number)
        results = await asyncio.gather(*(client.get(order, f"w{number}").result(timeout=60) for number in range(30)))
        assert results == [4 * number for number in range(30)]
        assert one.incarnation != two.incarnation


async def test_without_the_option_the_error_names_it(pooled_url: str) -> None:
    with pytest.raises(StoreError, match="prepared=off"):
        async with Client(pooled_url) as client:
            await asyncio.gather(*(client.start(order.bind(number), id=f"w{number}") for number in range(20)))


async def test_a_session_that_keeps_something_is_noticed(forgetful_url: str) -> None:
    with pytest.raises(StoreError, match="the session keeps something"):
        async with Client(forgetful_url) as client:
            await client.start(order.bind(1))
    assert Forgetful.kept > 0
