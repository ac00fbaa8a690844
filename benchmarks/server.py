"""The PostgreSQL that is measured: one server for a whole run, as durable as its defaults, a database for each child.

It is started and thrown away by us, or it is the one at `--postgres`. Its CPU time is read from the system, so that is
known only on Linux and on the same machine.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.postgres import PostgresMissing, own_database, own_server

DURABILITY = "fsync, synchronous_commit on"

# Durability is as PostgreSQL comes. No checkpoint falls into one measurement and not into the next.
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{directory}'
max_connections = 200
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 30min
timezone = 'UTC'
"""
_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(given: str | None) -> Iterator[str]:
    """The address of a server: the given one, or one of our own."""
    if given is not None:
        yield given
        return
    try:
        with own_server(SETTINGS) as url:
            yield url
    except PostgresMissing as exc:
        sys.exit(f"{exc} Or leave postgres out: --stores memory,sqlite")


database = own_database


async def postmaster_of(url: str) -> int | None:
    """The process id of the server's first process; None when it is not on this machine."""
    import asyncpg  # the other stores are measured without it

    connection = await asyncpg.connect(url)
    try:
        found = _stat(await connection.fetchval("SELECT pg_backend_pid()"))
    finally:
        await connection.close()
    return None if found is None or found[0] != "postgres" else int(found[2])


def cpu_of(postmaster: int | None) -> float:
    """CPU seconds that a server has spent since it began, the processes that have ended included."""
    ticks = 0
    for process, found in processes_of(postmaster).items():
        last = 16 if process == postmaster else 14  # with those of children that have ended
        ticks += sum(int(field) for field in found[12:last])
    return ticks / _TICKS


def processes_of(postmaster: int | None) -> dict[int, list[str]]:
    """The processes of a server, with what the system says of them (see `_stat`)."""
    if postmaster is None:
        return {}
    names = (entry.name for entry in Path("/proc").iterdir())
    stats = {int(name): _stat(int(name)) for name in names if name.isdigit()}
    return {
        process: found
        for process, found in stats.items()
        if found and (process == postmaster or int(found[2]) == postmaster)
    }


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the process id: name, state, parent, …"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    return [name, *rest.split()]


async def settle(url: str) -> None:
    """Do now what autovacuum and the checkpointer would do at some time, so that they do not do it in a measurement."""
    import asyncpg  # the other stores are measured without it

    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
