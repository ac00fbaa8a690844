"""Servers of a cluster on loopback: a primary, standbys made from it, killed, promoted and brought back.

Each has a data directory and a port of its own. They end, and their data goes, with the process that started them.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.postgres import (
    PostgresMissing,
    Run,
    first_line,
    initialise,
    missing,
    reachable,
    run_unprivileged,
    server_binaries,
)

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
full_page_writes = off
timezone = 'UTC'
wal_receiver_status_interval = 1
wal_retrieve_retry_interval = 100
"""

# Starts the server once for each line, says its process id, and takes its data away in the end.
SUPERVISOR = """
while read -r word; do
    "$1/postgres" -D "$2" -c port="$3" >>"$2.log" 2>&1 </dev/null &
    echo $!
done
kill -QUIT $! 2>/dev/null
wait
rm -rf "$2" "$2.log"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server; `start` may be called again when it was killed."""

    def __init__(self, binaries: Path, data: Path, run: Run, port: int) -> None:
        self.data = data
        self.port = port
        self.pid = 0
        self._binaries = binaries
        self._run = run
        self._supervisor = subprocess.Popen(
            ["/bin/sh", "-c", SUPERVISOR, "supervisor", binaries, data, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **run,
        )

    def set(self, line: str) -> None:
        """Change a setting, at once when the server runs."""
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(f"\n{line}\n")
        if self.pid:
            os.kill(self.pid, signal.SIGHUP)

    async def start(self) -> None:
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write("start\n")
        self._supervisor.stdin.flush()
        self.pid = int(await asyncio.to_thread(first_line, self._supervisor.stdout))
        await self.until("SELECT true")

    async def until(self, condition: str) -> None:
        """Wait until the server answers, and says yes."""
        async with asyncio.timeout(60):
            while not await self._holds(condition):  # noqa: ASYNC110  # a server tells nobody
                await asyncio.sleep(0.02)

    async def _holds(self, condition: str) -> bool:
        try:
            return bool(await self.fetchval(condition))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    async def fetchval(self, sql: str) -> Any:
        connection = await asyncpg.connect(
            f"postgresql://derecho@127.0.0.1:{self.port}/postgres?sslmode=disable", timeout=5
        )
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    def processes(self) -> list[int]:
        """The server's process and all that it has started."""
        if not self.pid:
            return []
        found = [self.pid]
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.pid:
                    found.append(int(stat.parent.name))
        return found

    def signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """All of it, at once, without a word."""
        self.signal(signal.SIGSTOP)
        self.signal(signal.SIGKILL)
        self.pid = 0

    async def standby(self, data: Path, port: int) -> "Server":
        """A standby that has caught up."""
        program = str(self._binaries / "pg_basebackup")
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync", f"--pgdata={data}"]
        where = ["--host=127.0.0.1", f"--port={self.port}", "--username=derecho"]
        copy = partial(subprocess.run, [program, *options, *where], check=True, timeout=60, **self._run)
        await asyncio.to_thread(copy)
        other = Server(self._binaries, data, self._run, port)
        other.set("synchronous_standby_names = ''")
        await other.start()
        await self.until("SELECT true FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn = flush_lsn")
        return other

    async def demand_standby(self) -> None:
        """From now on no commit is acknowledged that a standby does not have."""
        self.set("synchronous_standby_names = '*'")
        await self.until("SELECT true FROM pg_stat_replication WHERE sync_state = 'sync'")

    async def promote(self) -> None:
        assert await self.fetchval("SELECT pg_promote(true, 60)")

    def close(self) -> None:
        assert self._supervisor.stdin is not None
        self.signal(signal.SIGCONT)
        self._supervisor.stdin.close()
        self._supervisor.wait(60)
        assert self._supervisor.stdout is not None
        self._supervisor.stdout.close()


class Cluster:
    """The servers, oldest first; `address` has all that there will be, oldest first."""

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory
        self.ports = [free_port() for _ in range(size)]
        self.servers: list[Server] = []
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.address = f"postgresql://derecho@{hosts}/postgres?sslmode=disable&durable=off"

    async def add_standby(self) -> Server:
        """Of the newest server."""
        number = len(self.servers)
        standby = await self.servers[-1].standby(self.directory / f"data{number}", self.ports[number])
        self.servers.append(standby)
        return standby


@contextlib.asynccontextmanager
async def cluster(size: int) -> AsyncIterator[Cluster]:
    """A cluster for `size` servers, with the first of them."""
    root = "/tmp" if os.access("/tmp", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="derecho-pg-", dir=root))
    run = run_unprivileged(directory)
    try:
        binaries = reachable(server_binaries(), directory, run)
    except PostgresMissing as reason:
        missing(reason)
    made = Cluster(directory, size)
    try:
        await asyncio.to_thread(initialise, binaries, directory, run, SETTINGS)
        first = Server(binaries, directory / "data", run, made.ports[0])
        made.servers.append(first)
        await first.start()
        yield made
    finally:
        for server in reversed(made.servers):
            server.close()
        shutil.rmtree(directory, ignore_errors=True)
