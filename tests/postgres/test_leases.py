"""Who lives is what a row of the server's says: a blocked engine goes on living, and two engines are never one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import derecho
from derecho import Client, Context, Engine
from tests.postgres.load import GO, LEDGER, order
from tests.postgres.worker import ROOT, read, repeated
from tests.support.schemas import Janitor
from tests.support.world import eventually

LEASE = 1.0
TWINS = """
import asyncio, os, random, sys
from derecho import Engine
from tests.postgres.load import double, order

engine = Engine(sys.argv[1], workflows=[order], activities=[double], worker_id="twin")
random.seed(1)
os.fork()
asyncio.run(engine.run())
"""


async def test_an_engine_whose_loop_is_blocked_keeps_its_lease(
    empty_schema_url: str, janitor: Janitor, shared_schema: str
) -> None:
    left: list[float] = []

    @derecho.activity
    async def slip() -> None:
        """It holds the engine's loop for longer than the lease."""
        until = time.monotonic() + 1.8 * LEASE
        while time.monotonic() < until:
            time.sleep(0.05)  # noqa: ASYNC251  # this is the slip
            rows = janitor.fetch(f"SELECT lease_until - {shared_schema}.instant() FROM {shared_schema}.workers")
            left.extend(row[0] for row in rows)

    @derecho.workflow
    async def calls(ctx: Context) -> None:
        await slip.execute(ctx)

    async with Engine(empty_schema_url, workflows=[calls], activities=[slip], lease=LEASE) as engine:
        before = engine.incarnation
        await engine.client.run(calls.bind())
        assert engine.incarnation == before
    assert len(left) >= 10
    assert min(left) > 0, "anybody might have buried it"


async def test_engines_of_one_name_that_were_forked_from_one_process_are_two(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"

    def workers() -> set[str]:
        return {row[0] for row in janitor.fetch(f"SELECT worker FROM {shared_schema}.workers WHERE name = 'twin'")}

    def processes() -> set[str]:
        """Those that have worked."""
        return {line.split()[3] for line in ledger.read_text().splitlines()}

    command = [sys.executable, "-c", TWINS, empty_schema_url]
    environment = {**os.environ, LEDGER: str(ledger)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True) as twins:  # noqa: ASYNC220  # it only starts
        try:
            await eventually(lambda: len(workers()) == 2)
            async with Client(empty_schema_url) as client:
                count = 0
                while count < 20 or len(processes()) < 2:  # one of them may be quicker for a while
                    numbers = range(count, count := count + 10)
                    handles = [await client.start(order.bind(n), id=f"w{n}", signals=[(GO, n)]) for n in numbers]
                    assert [await handle.result(timeout=60) for handle in handles] == [4 * n for n in numbers]
            assert len(workers()) == 2, "both live"
            os.killpg(twins.pid, signal.SIGTERM)
            await eventually(lambda: not workers())
        finally:
            os.killpg(twins.pid, signal.SIGKILL)
    assert repeated(ledger) == set(), "one attempt ran twice"
    assert read(ledger)[0].total() == 2 * count
