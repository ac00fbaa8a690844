"""An engine that was stopped for longer than its lease comes back and can do no harm; it goes on."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import derecho
from derecho import Client
from tests.postgres.worker import order
from tests.support.audits import assert_sound
from tests.support.schemas import Janitor
from tests.support.world import eventually

ROOT = Path(__file__).parents[2]
PAUSES = int(os.environ.get("DERECHO_PAUSES", "10"))


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=ROOT)


async def test_a_paused_engine_doubles_nothing_loses_nothing_and_survives(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, tmp_path: Path
) -> None:
    chance = random.Random(11)
    ledger = tmp_path / "ledger"
    command = [sys.executable, "-m", "tests.postgres.worker", empty_schema_url, str(ledger)]
    workers = [start(command) for _ in range(2)]
    taken_over = started = 0
    try:
        async with Client(empty_schema_url) as client:
            await eventually(lambda: len(janitor.fetch(f"SELECT FROM {shared_schema}.workers")) == 2)
            for _ in range(PAUSES):
                for _ in range(10):
                    await client.start(order.bind(f"o{started}"), id=f"o{started}")
                    started += 1
                await asyncio.sleep(chance.uniform(0.02, 0.1))
                zombie = chance.choice(workers)
                before = {row[0] for row in janitor.fetch(f"SELECT worker FROM {shared_schema}.workers")}
                zombie.send_signal(signal.SIGSTOP)
                await asyncio.sleep(0.8 * chance.uniform(2.0, 3.0))
                after = {row[0] for row in janitor.fetch(f"SELECT worker FROM {shared_schema}.workers")}
                taken_over += len(before - after)
                zombie.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.1)
            results = [await client.get(order, f"o{n}").result(timeout=60) for n in range(started)]
            assert results == [10] * started
            for number in range(started):
                history = await client.get(order, f"o{number}").history()
                derecho.replay(order, history)
                outcomes = Counter(event["activity"] for event in history if event["type"] == "activity_completed")
                assert len(outcomes) == 5
                assert set(outcomes.values()) == {1}
            await assert_sound(client.store)
            assert [worker.poll() for worker in workers] == [None, None], "a zombie has ended"
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(30)
    assert 3 * taken_over >= 2 * PAUSES, f"only {taken_over} of {PAUSES} pauses led to a take-over"
    begun = Counter(tuple(line.split()[1:3]) for line in ledger.read_text().splitlines())
    assert set(begun.values()) == {1}, "one attempt ran twice"
    assert not janitor.fetch(f"SELECT FROM {shared_schema}.live")
    assert not janitor.fetch(f"SELECT FROM {shared_schema}.activities")
