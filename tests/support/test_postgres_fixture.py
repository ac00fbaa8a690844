"""What the PostgreSQL fixture promises to the tests that use it."""

import asyncio
import os
import stat
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from tests.support import postgres
from tests.support.postgres import REQUIRE_VARIABLE, URL_VARIABLE, PostgresMissing, PostgresServer
from tests.support.schemas import Janitor

REPOSITORY = Path(__file__).parents[2]
LEFT: list[Janitor] = []


def directory_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


async def ask(url: str, question: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_the_fixture_is_a_real_server(postgres_url: str) -> None:
    assert str(await ask(postgres_url, "select version()")).startswith("PostgreSQL ")


async def test_the_database_is_ours_to_change(postgres_url: str) -> None:
    await ask(postgres_url, "create schema probe")
    await ask(postgres_url, "drop schema probe")


async def test_two_servers_at_once_do_not_meet(postgres_url: str) -> None:
    await ask(postgres_url, "create table meeting_point ()")
    try:
        with PostgresServer() as other:
            assert await ask(other.url, "select to_regclass('meeting_point')") is None
    finally:
        await ask(postgres_url, "drop table meeting_point")


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> pytest.MonkeyPatch:
    """The next `PostgresServer` is started by us. Wants `postgres_url` so that a missing PostgreSQL is said once."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    try:
        postgres.server_binaries()
    except PostgresMissing as reason:
        postgres.missing(reason)
    return monkeypatch


def test_a_server_is_private_and_leaves_nothing(own_server: pytest.MonkeyPatch) -> None:
    with PostgresServer() as server:
        directory = directory_of(server.url)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert (directory / ".s.PGSQL.5432").is_socket()
    assert not directory.exists()


async def test_a_given_url_is_used_and_left_as_it_was(own_server: pytest.MonkeyPatch) -> None:
    with PostgresServer() as existing:
        own_server.setenv(URL_VARIABLE, existing.url)
        with PostgresServer() as borrowed:
            assert directory_of(borrowed.url) == directory_of(existing.url)
            assert str(await ask(borrowed.url, "select current_database()")).startswith("derecho_test_")
        assert await ask(existing.url, "select count(*) from pg_database where datname like 'derecho%'") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")
async def test_binaries_out_of_reach_are_brought_into_reach(own_server: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binaries = postgres.server_binaries()
    package = binaries.parents[1]
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        (locked / name).symlink_to(package.with_name(name))
    hidden = locked / binaries.relative_to(package.parent)
    own_server.setattr(postgres, "server_binaries", lambda: hidden)
    with PostgresServer() as server:
        assert (directory_of(server.url) / "copy").is_dir()
        assert await ask(server.url, "select 1") == 1


async def test_a_server_ends_with_a_killed_test_process(own_server: pytest.MonkeyPatch) -> None:
    program = (
        "import time\n"
        "from tests.support.postgres import PostgresServer\n"
        "with PostgresServer() as server:\n"
        "    print(server.url, flush=True)\n"
        "    time.sleep(600)\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    url = (await child.stdout.readline()).decode().strip()
    connection = await asyncpg.connect(url)
    child.kill()
    # Whoever looks after the server has inherited the pipes: they close when it is done.
    async with asyncio.timeout(30):
        await child.communicate()
    assert connection.is_closed()
    assert not directory_of(url).exists()


def test_a_missing_postgresql_is_a_failure_when_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE_VARIABLE, "1")
    with pytest.raises(pytest.fail.Exception, match=f"nowhere. {REQUIRE_VARIABLE}=1"):
        postgres.missing(PostgresMissing("nowhere."))


def test_a_missing_postgresql_is_a_skip_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="nowhere"):
        postgres.missing(PostgresMissing("nowhere."))


def test_what_to_do_is_said_when_there_is_no_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter(()))
    with pytest.raises(PostgresMissing, match=URL_VARIABLE):
        postgres.server_binaries()


@pytest.mark.parametrize("turn", [1, 2])
def test_a_test_meets_nothing_of_the_test_before_it(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, turn: int
) -> None:
    """Both turns find the same, and leave rows, a changed table, a changed session and an open transaction behind."""
    assert janitor.fetch(f"SELECT FROM {shared_schema}.timers") == []
    assert janitor.fetch("SELECT FROM pg_indexes WHERE indexname = 'one_open_run' AND schemaname = $1", shared_schema)
    assert janitor.fetch("SHOW search_path")[0][0] == '"$user", public'
    janitor.execute(f"INSERT INTO {shared_schema}.timers VALUES ('run', 1, 1)")
    janitor.execute(f"DROP INDEX {shared_schema}.one_open_run; SET search_path = {shared_schema}")
    LEFT.append(Janitor(janitor.url))
    LEFT[-1].execute(f"BEGIN; INSERT INTO {shared_schema}.timers VALUES ('run', 2, 2)")
    if turn == 2:
        for other in LEFT:
            other.close()
