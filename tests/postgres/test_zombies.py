"""An engine that was stopped for longer than its lease comes back and can do no harm; it goes on."""

import asyncio
import math
import os
import random
import signal
from pathlib import Path

from derecho import Client
from tests.postgres.load import Load
from tests.postgres.worker import Worker, read
from tests.support.schemas import Janitor
from tests.support.world import eventually

PAUSES = int(os.environ.get("DERECHO_PAUSES", "10"))
LEASE = 0.4


async def test_a_paused_engine_doubles_nothing_loses_nothing_and_survives(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, tmp_path: Path
) -> None:
    chance = random.Random(11)
    ledger = tmp_path / "ledger"

    def names() -> set[str]:
        return {row[0] for row in janitor.fetch(f"SELECT name FROM {shared_schema}.workers")}

    def holds_something(worker: Worker) -> bool:
        held = f"SELECT worker FROM {shared_schema}.live UNION SELECT worker FROM {shared_schema}.activities"
        query = f"SELECT FROM {shared_schema}.workers WHERE worker IN ({held}) AND name LIKE $1"
        return bool(janitor.fetch(query, f"%-{worker.process.pid}-%"))

    async def pause(zombie: Worker, load: Load) -> None:
        await eventually(lambda: holds_something(zombie))
        zombie.signal(signal.SIGSTOP)
        await load.fault("pauses", landed=holds_something(zombie))
        await asyncio.sleep(LEASE * chance.uniform(1.5, 2.0))
        await eventually(lambda: zombie.is_taken_over(names()))  # on a busy machine the third is late, too
        load.faults["taken over"] += 1
        zombie.signal(signal.SIGCONT)

    workers = [Worker(empty_schema_url, LEASE, ledger) for _ in range(3)]
    try:
        async with Client(empty_schema_url) as client:
            await eventually(lambda: len(names()) == len(workers))
            load = Load(client)
            async with load.running():
                await load.progress()
                for _ in range(math.ceil(PAUSES / 2)):  # two at a time: the third takes over from both
                    await asyncio.gather(*(pause(zombie, load) for zombie in chance.sample(workers, 2)))
                    await load.progress(5)
            recorded = await load.check(PAUSES)
            assert {worker.process.poll() for worker in workers} == {None}, "a zombie has ended"
            begun, refused = read(ledger)
            print(f"{begun.total()} attempts, refused {dict(refused)}")
            assert load.faults["taken over"] == load.faults["pauses"] >= PAUSES, load.faults
            assert refused["Advance"] + refused["FinishActivity"] >= PAUSES / 2, "hardly a stale write was attempted"
            assert {key for key, _ in begun} == recorded, "the ledger and the histories disagree"
            assert not janitor.fetch(f"SELECT FROM {shared_schema}.live")
            assert not janitor.fetch(f"SELECT FROM {shared_schema}.activities")
        for worker in workers:
            worker.signal(signal.SIGTERM)
        assert {await asyncio.to_thread(worker.process.wait, 25) for worker in workers} == {0}
    finally:
        for worker in workers:
            worker.kill()
