"""Behind PgBouncer in transaction mode, where nothing of a session stays, everything works with `prepared=off`."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from derecho import Client, Engine
from derecho.errors import StoreError
from tests.postgres.load import GO, double, order
from tests.support.postgres import run_unprivileged

PORT = 6543
PGBOUNCER = os.environ.get("DERECHO_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")

pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer is installed here")


@pytest.fixture
def pooled_url(empty_schema_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same schema through two server sessions that all clients share."""
    directory = Path(parse_qs(urlsplit(empty_schema_url).query)["host"][0])
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
    assert PGBOUNCER is not None
    run = run_unprivileged(directory)
    libraries = os.environ.get("LD_LIBRARY_PATH", "")
    run["env"] = {**run["env"], "LD_LIBRARY_PATH": libraries}
    process = subprocess.Popen([PGBOUNCER, "-q", config], stderr=subprocess.DEVNULL, **run)
    while not (directory / f".s.PGSQL.{PORT}").exists():
        assert process.poll() is None, "pgbouncer does not start"
        time.sleep(0.01)
    schema = parse_qs(urlsplit(empty_schema_url).query)["schema"][0]
    yield f"postgresql://derecho@/postgres?host={directory}&port={PORT}&schema={schema}&durable=off"
    process.terminate()
    process.wait(10)


async def test_two_engines_work_behind_a_pooler(pooled_url: str) -> None:
    url = f"{pooled_url}&prepared=off"
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
