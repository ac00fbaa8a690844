"""Worker processes are killed with SIGKILL again and again, on a real database file; nothing acknowledged is lost."""

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
from tests.faults.worker import GO, order
from tests.support.audits import assert_sound

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("DERECHO_KILLS", "20"))
ORDERS = 6 * KILLS


def start_worker(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # our own module
        [sys.executable, "-m", "tests.faults.worker", str(folder / "orders.db"), str(folder / "ledger")], cwd=ROOT
    )


async def test_no_acknowledged_start_signal_or_result_is_lost_to_sigkill(tmp_path: Path) -> None:
    chance = random.Random(7)
    in_flight = 0
    async with Client(f"sqlite:///{tmp_path}/orders.db") as client:
        worker = start_worker(tmp_path)
        try:
            started = 0
            for _ in range(KILLS):
                for pause in (
                    chance.uniform(0.05, 0.5),
                    chance.uniform(0, 0.02),
                ):  # some are well under way, some begin
                    for _ in range(ORDERS // KILLS // 2):
                        await client.start(order.bind(f"o{started}"), id=f"o{started}")
                        await client.get(order, f"o{started}").signal(GO, started, key="go")
                        await client.get(order, f"o{started}").signal(GO, -1, key="go")  # the same signal, sent again
                        started += 1
                    await asyncio.sleep(pause)
                in_flight += bool([run async for run in client.list(status="running")])
                worker.send_signal(signal.SIGKILL)
                worker.wait()
                worker = start_worker(tmp_path)
            results = [await client.get(order, f"o{n}").result(timeout=60) for n in range(started)]
        finally:
            worker.terminate()
            worker.wait()
        assert started == ORDERS
        assert in_flight >= 0.8 * KILLS, f"only {in_flight} of {KILLS} kills hit work in flight"
        for number, result in enumerate(results):
            name = f"o{number}"
            items = [f"{name}:item-{n}" for n in range(3)]
            assert result == [f"{name}:reserve", *items, str(number), "noted", f"{name}:ship"]
        recorded = await check_histories(client, started)
        await assert_sound(client.store)
    check_ledger(tmp_path / "ledger", recorded)


async def check_histories(client: Client, count: int) -> dict[str, int]:
    """Every history replays and has one outcome per activity; gives the instant of each outcome by key."""
    recorded: dict[str, int] = {}
    for number in range(count):
        history = await client.get(order, f"o{number}").history()
        derecho.replay(order, history)
        outcomes = Counter(event["activity"] for event in history if event["type"] == "activity_completed")
        assert len(outcomes) == 5
        assert set(outcomes.values()) == {1}
        for task in history.tasks:
            for event in task.events:
                if event["type"] == "activity_completed":
                    recorded[f"{history.run_id}:{event['activity']}"] = task.at
    return recorded


def check_ledger(path: Path, recorded: dict[str, int]) -> None:
    """No attempt began after its activity's outcome was recorded; each attempt number was used once."""
    begun: Counter[tuple[str, str]] = Counter()
    for line in path.read_text().splitlines():
        what, key, attempt, at = line.split()
        if what == "begin":
            begun[key, attempt] += 1
            assert int(at) <= recorded[key], f"{key} began again after its result was recorded"
    assert {key for key, _ in begun} == set(recorded)
    twice = {place: count for place, count in begun.items() if count > 1}
    assert not twice, f"one attempt ran twice: {twice}"
