"""Two engine processes: a run stays where it is warm, goes on elsewhere when that one dies, and is shared if wanted."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from derecho import Client, Handle
from tests.postgres.turner import TURNS, go, turns
from tests.support.schemas import Janitor
from tests.support.world import eventually

ROOT = Path(__file__).parents[2]
RUNS_OF_EACH = 5
LONG, SHORT = 600.0, 1.5
"""Leases, in seconds: one that no busy machine lets lapse, and one that a test can wait for."""
AT_WORK = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'
"""

Start = Callable[[str, float], subprocess.Popen[bytes]]


@pytest.fixture
def start(empty_schema_url: str) -> Iterator[Start]:
    """Starts an engine process, with affinity "on" or "off" and a lease; all are gone in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(affinity: str, lease: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.postgres.turner", empty_schema_url, affinity, str(lease)]
        started.append(subprocess.Popen(command, cwd=ROOT))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(30)


class Fleet:
    """Two engines, each of which has begun some runs that wait for signals."""

    def __init__(self, client: Client, engines: list[subprocess.Popen[bytes]], janitor: Janitor) -> None:
        self.client = client
        self.engines = engines
        self._janitor = janitor
        self._runs: list[Handle[list[int]]] = []

    async def fill(self) -> None:
        """Start runs, the first half of them at engine 0."""
        for number in range(2):
            async with self.without(1 - number):
                self._runs += [await self.client.start(turns.bind()) for _ in range(RUNS_OF_EACH)]
                await self._all_have(1)

    async def turn(self, number: int) -> None:
        """Signal each run, and return when each has taken its turn and sleeps, or has ended."""
        for run in self._runs:
            await run.signal(go, number)
        await self._all_have(number + 1)

    @asynccontextmanager
    async def without(self, number: int) -> AsyncIterator[None]:
        """Meanwhile this engine stands still, with nothing on its way to the database: it has claimed nothing."""
        pid = self.engines[number].pid
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WSTOPPED)
            await asyncio.sleep(0.02)
            if not self._janitor.fetch(AT_WORK):
                break
            os.kill(pid, signal.SIGCONT)
        yield
        os.kill(pid, signal.SIGCONT)

    async def _all_have(self, tasks: int) -> None:
        async def they_have() -> bool:
            rows = [await self.client.store.get_run(run.run_id) for run in self._runs]
            return all(row is not None and row.tasks == tasks and row.claim is None for row in rows)

        await eventually(they_have)

    async def turns_of(self) -> list[list[int]]:
        """Who took each turn, as the number of the engine: a list for each run, those begun at engine 0 first."""
        engines = {engine.pid: number for number, engine in enumerate(self.engines)}
        return [[engines[pid] for pid in await run.result(timeout=60)] for run in self._runs]


@asynccontextmanager
async def fleet(
    url: str, start: Start, affinity: str, lease: float, janitor: Janitor, schema: str
) -> AsyncIterator[Fleet]:
    engines = [start(affinity, lease) for _ in range(2)]
    await eventually(lambda: len(janitor.fetch(f"SELECT FROM {schema}.workers")) == 2)
    async with Client(url) as client:
        made = Fleet(client, engines, janitor)
        await made.fill()
        yield made


async def test_a_run_stays_with_the_process_that_holds_it_warm(
    empty_schema_url: str, start: Start, janitor: Janitor, shared_schema: str
) -> None:
    async with fleet(empty_schema_url, start, "on", LONG, janitor, shared_schema) as two:
        for number in range(1, TURNS + 1):
            await two.turn(number)
        assert await two.turns_of() == [TURNS * [0]] * RUNS_OF_EACH + [TURNS * [1]] * RUNS_OF_EACH


async def test_without_affinity_whoever_is_free_takes_a_turn(
    empty_schema_url: str, start: Start, janitor: Janitor, shared_schema: str
) -> None:
    async with fleet(empty_schema_url, start, "off", LONG, janitor, shared_schema) as two:
        for number in range(1, TURNS + 1):
            async with two.without(number % 2):
                await two.turn(number)
        assert await two.turns_of() == [[0, 1] * (TURNS // 2)] * 2 * RUNS_OF_EACH


async def test_runs_of_a_process_that_is_killed_go_on_in_the_other(
    empty_schema_url: str, start: Start, janitor: Janitor, shared_schema: str
) -> None:
    async with fleet(empty_schema_url, start, "on", SHORT, janitor, shared_schema) as two:
        await two.turn(1)
        await two.turn(2)
        two.engines[0].kill()
        for number in range(3, TURNS + 1):
            await two.turn(number)
        taken = await two.turns_of()
    assert {of_run[-1] for of_run in taken} == {1}
    assert any(of_run[0] == 0 for of_run in taken)
