"""Engines are killed and the server restarts under load, politely and by crash: nothing acknowledged is lost."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from derecho import Client
from tests.postgres.load import Load
from tests.postgres.worker import Worker, read, repeated
from tests.support.postgres import own_server, reachable, run_unprivileged, server_binaries

KILLS = int(os.environ.get("DERECHO_KILLS_POSTGRES", "10"))
RESTARTS = int(os.environ.get("DERECHO_RESTARTS", "5"))
LEASE = 0.5


def directory_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def restart(url: str, mode: str, wait: str = "--wait") -> None:
    directory = directory_of(url)
    run = run_unprivileged(directory)
    command: list[str | Path] = [reachable(server_binaries(), directory, run) / "pg_ctl", "restart", wait]
    where = [f"--mode={mode}", f"--pgdata={directory}/data", f"--log={directory}/log"]
    subprocess.run([*command, *where], check=True, stdout=subprocess.DEVNULL, timeout=60, **run)


@contextmanager
def fleet(url: str, ledger: Path) -> Iterator[list[Worker]]:
    workers = [Worker(url, LEASE, ledger) for _ in range(2)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()


async def strike(load: Load, server: str, turn: int) -> None:
    """Restart the server: politely, by crash, by crash while it recovers from one, by turns."""
    await load.fault("restarts")
    if turn % 3 == 2:
        await asyncio.to_thread(restart, server, "immediate", "--no-wait")
        load.faults["while it starts"] += 1
    mode = ["fast", "immediate"][turn % 3 > 0]
    load.faults[mode] += 1
    await asyncio.to_thread(restart, server, mode)


@pytest.mark.skipif("DERECHO_TEST_POSTGRES_URL" in os.environ, reason="a server of somebody else's is not restarted")
async def test_nothing_acknowledged_is_lost_when_engines_are_killed_and_the_server_restarts(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with own_server() as server, fleet(url := f"{server}&durable=off", ledger) as workers:
        async with Client(url) as client:
            load = Load(client)
            async with load.running():
                await load.progress()
                for turn in range(max(KILLS, RESTARTS)):
                    if turn < KILLS:
                        await load.fault("kills")
                        workers[turn % 2].kill()
                        workers[turn % 2] = Worker(url, LEASE, ledger)
                    if turn % 2 == 0 and turn < 2 * RESTARTS:
                        await asyncio.sleep(LEASE)  # others are about to take over what the dead one held
                        await strike(load, server, turn // 2)
                    await load.progress(5)
            recorded = await load.check(KILLS + RESTARTS)
            begun, refused = read(ledger)
            print(f"{begun.total()} attempts, refused {dict(refused)}")
            assert {key for key, _ in begun} == recorded, "the ledger and the histories disagree"
            assert repeated(ledger) == set(), "one attempt ran twice"
        recoveries = (directory_of(server) / "log").read_text().count("automatic recovery in progress")
        assert recoveries >= load.faults["immediate"] >= RESTARTS // 2, "hardly a server recovered"
