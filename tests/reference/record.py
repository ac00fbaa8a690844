"""Record the golden histories: every scenario on a real engine, in a file database, on a virtual clock.

python -m tests.reference.record tests/histories/VERSION

A history that has been committed is never edited: a new version gets a folder of its own, and `checksums.txt` gets the
lines of its files.
"""

import asyncio
import logging
import re
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

from derecho import Client, Engine, History, WorkflowError
from derecho.clock import SECOND
from derecho.stores.sqlite import SQLiteStore
from derecho.testing.clock import VirtualClock
from tests.house.repository import ROOT
from tests.reference.activities import ACTIVITIES
from tests.reference.corpus import CHECKSUMS, checksum, name_of
from tests.reference.scenarios import Scenario, scenarios
from tests.reference.workflows import REFERENCE, changed_yesterday

STEP = 5 * SECOND
FAR = 4 * 3600 * SECOND
"""How far the clock moves at once: a little while things happen, further when only long timers are left."""


class Recorder:
    def __init__(self, folder: str) -> None:
        self.clock = VirtualClock()
        self.store = SQLiteStore(Path(folder) / "recorded.db", synchronous="normal", clock=self.clock)

    def engine(self, *, today: bool) -> Engine:
        workflows = {**REFERENCE, **({} if today else {"changed": changed_yesterday})}
        return Engine(
            self.store,
            workflows=list(workflows.values()),
            activities=ACTIVITIES,
            worker_id="recorder",
            lease=1e9,
            deadlock_timeout=None,
            cache_size=1000 if today else 2,
        )

    async def record(self, cases: list[Scenario]) -> list[History]:
        """Run all of them at once; the engine is replaced by one with today's code after a while."""
        async with self.engine(today=False) as engine:
            for case in cases:
                if not is_new(case):
                    await engine.client.start(case.call, id=case.id)
            await self.until(engine.client, cases, 0, 30)
        async with self.engine(today=True) as engine:
            for case in filter(is_new, cases):
                await engine.client.start(case.call, id=case.id)
            await self.until(engine.client, cases, 30, None)
            return await self.histories(engine.client)

    async def until(self, client: Client, cases: list[Scenario], begin: float, end: float | None) -> None:
        """Let time pass, and what comes from outside come, until `end` or until all have closed."""
        nudges = sorted(((nudge, case.id) for case in cases for nudge in case.nudges), key=lambda item: item[0].at)
        nudges = [item for item in nudges if item[0].at >= begin and (end is None or item[0].at < end)]
        now, first = begin, self.clock.now() - int(begin * SECOND)
        while end is None or now < end:
            while nudges and nudges[0][0].at <= now:
                nudge, id = nudges.pop(0)
                with suppress(WorkflowError):  # it has closed by now
                    await nudge.happen(client.get_by_id(id))
            for _ in range(3):
                await asyncio.sleep(0.004)
            runs = [run async for run in client.list()]
            blocked = [f"{run.workflow_id}: {run.blocked_reason}" for run in runs if run.status == "blocked"]
            if blocked:
                raise RuntimeError("\n".join(blocked))
            if not nudges and all(run.closed_at is not None for run in runs):
                return
            now = (self.clock.advance(STEP if now < 4_000 else FAR) - first) / SECOND

    async def histories(self, client: Client) -> list[History]:
        runs = [run async for run in client.list()]
        return [await client.get_by_id(run.workflow_id, run.run_id).history() for run in reversed(runs)]


def is_new(case: Scenario) -> bool:
    """Every other run of `changed` begins with today's code."""
    return case.call.name == "changed" and int(case.id.rpartition("-")[2]) % 2 == 0


def scrubbed(text: str) -> str:
    """Without the paths of this machine, which tracebacks hold."""
    text = text.replace(f"{ROOT}/", "").replace(sys.prefix, "python").replace(sys.base_prefix, "python")
    return re.sub(r"python/lib/python3\.\d+/", "python/", text)


def write(histories: list[History], folder: Path) -> int:
    """One file each, named by workflow type and number; adds their checksums."""
    numbers: Counter[str] = Counter()
    lines, size = [], 0
    for history in histories:
        numbers[history.workflow_type] += 1
        path = folder / history.workflow_type / f"{numbers[history.workflow_type]:02}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = scrubbed(history.dumps()).encode()
        with path.open("xb") as file:  # never over one that is there
            file.write(data)
        size += len(data)
        lines.append(f"{checksum(path)}  {name_of(path)}\n")
    with CHECKSUMS.open("a") as file:
        file.writelines(lines)
    print(f"{len(lines)} histories, {sum(map(len, histories))} events, {size} bytes: {dict(numbers)}")
    return len(lines)


async def main() -> list[History]:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as temporary:
        recorder = Recorder(temporary)
        histories = await recorder.record(scenarios())
        await recorder.store.close()
    return histories


if __name__ == "__main__":
    write(asyncio.run(main()), Path(sys.argv[1]).resolve())
