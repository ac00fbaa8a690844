"""Processes that write are killed in the middle of it: every acknowledged commit is there, whole, and no other half."""

import os
import random
from pathlib import Path

import pytest

from derecho.journal.changes import CreateRun
from derecho.stores.sqlite import SQLiteStore
from derecho.testing.conformance.kit import message, run_row
from tests.stores.faulty import hear, kill, start_process

WRITE_FOR_EVER = """
    async def main(path, run_id):
        store = SQLiteStore(path)
        last = (await store.get_run(run_id)).inbox_last
        while True:
            size = 1 + last * 7 % 20
            numbers = range(last + 1, last + 1 + size)
            # Each commit is one transition for its first half and one for the second, so that halves would show.
            halves = [numbers[: size // 2], numbers[size // 2 :]]
            batch = [tuple(Deliver(message(f"m{number}"), run_id=run_id) for number in half) for half in halves]
            assert all(isinstance(result, Receipt) for result in await store.commit(batch))
            last += size
            say(last)
    asyncio.run(main(*sys.argv[1:]))
"""
KILLS = int(os.environ.get("DERECHO_FUZZ", "0")) // 100 or 4


@pytest.mark.parametrize("writers", [1, 3])
async def test_every_acknowledged_commit_survives_kill_nine(tmp_path: Path, writers: int) -> None:
    path, dice = tmp_path / "shop.db", random.Random(writers)
    runs = [f"run-{number}" for number in range(writers)]
    store = SQLiteStore(path)
    await store.commit([(CreateRun(run_row(number), ()),) for number in range(writers)])
    await store.close()
    commits = 0
    for _ in range(KILLS):
        processes = [start_process(WRITE_FOR_EVER, path, run_id) for run_id in runs]
        acknowledged = dict.fromkeys(runs, 0)
        for run_id, process in zip(runs, processes, strict=True):
            for _ in range(dice.randint(2, 40 // writers)):
                acknowledged[run_id] = int(hear(process))
                commits += 1
        for run_id, process in zip(runs, processes, strict=True):
            said = kill(process)
            whole_lines = said.splitlines()[: said.count("\n")]
            acknowledged[run_id] = int(whole_lines[-1]) if whole_lines else acknowledged[run_id]
        store = SQLiteStore(path)
        for run_id in runs:
            run, pending = await store.get_run(run_id), await store.pending(run_id)
            assert run is not None
            assert [one.data for one in pending.messages] == [
                message(f"m{number}").data for number in range(1, run.inbox_last + 1)
            ]
            assert run.inbox_last in boundaries(acknowledged[run_id]), "acknowledged, or one whole commit more"
        await store.close()
    assert commits >= KILLS * writers * 2


def boundaries(acknowledged: int) -> tuple[int, int]:
    """Where a run's inbox may end: at the acknowledged commit, or at the one that was under way."""
    return acknowledged, acknowledged + 1 + acknowledged * 7 % 20
