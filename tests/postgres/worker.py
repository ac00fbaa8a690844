"""A worker process for tests: `python -m tests.postgres.worker ADDRESS LEASE`. Its ledger also has what was refused."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from derecho import Engine
from derecho.errors import StoreUnavailable
from derecho.journal.changes import Advance, Conflict, FinishActivity, Heartbeat, RetryActivity
from derecho.stores import open_store
from tests.postgres.load import LEDGER, double, order, write
from tests.support.wrapped import wrapped

ROOT = Path(__file__).parents[2]
CLAIMED = Advance, FinishActivity, RetryActivity, Heartbeat


class Worker:
    """The process, seen from a test."""

    def __init__(self, address: str, lease: float, ledger: Path) -> None:
        command = [sys.executable, "-m", "tests.postgres.worker", address, str(lease)]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, LEDGER: str(ledger)})

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)

    def is_taken_over(self, names: set[str]) -> bool:
        """Whether it is not among the names of the workers that are registered."""
        return not any(f"-{self.process.pid}-" in name for name in names)


def read(ledger: Path) -> tuple[Counter[tuple[str, ...]], Counter[str]]:
    """How often each attempt began, and how many writes of each kind were refused."""
    lines = [line.split() for line in ledger.read_text().splitlines()]
    begun = Counter(tuple(line[1:3]) for line in lines if line[0] == "begin")
    return begun, Counter(line[1] for line in lines if line[0] == "refused")


def repeated(ledger: Path) -> set[str]:
    """Attempts that began more than once, but for those of a process that had lost its lease.

    When a claim gets no answer an engine forgets all that it holds. A result that is on its way to its run then comes
    too late for the store, and its attempt is made again under the same number.
    """
    lines = [line.split() for line in ledger.read_text().splitlines()]
    lost = {line[1] for line in lines if line[0] == "lost"}
    begun = Counter(tuple(line[1:3]) for line in lines if line[0] == "begin" and line[3] not in lost)
    return {key for (key, _), times in begun.items() if times > 1}


class LostLeases(logging.Handler):
    """Notes in the ledger that this process has lost its lease."""

    def emit(self, record: logging.LogRecord) -> None:
        if "had lost its lease" in record.getMessage():
            write(f"lost {os.getpid()}")


async def commit(original: Any, transitions: Any) -> Any:
    """Note each write under a claim that the store refused because the claim, or the history, is not what it was."""
    results = await original(transitions)
    for transition, result in zip(transitions, results, strict=True):
        if isinstance(result, Conflict) and result.reason != "unread":
            for change in transition:
                if isinstance(change, CLAIMED):
                    write(f"refused {type(change).__name__} {result.reason} {os.getpid()}")
                    break
    return results


async def main() -> None:
    logging.getLogger("derecho.engine").addHandler(LostLeases())
    store = wrapped(open_store(sys.argv[1]), commit=commit)
    engine = Engine(store, workflows=[order], activities=[double], lease=float(sys.argv[2]))
    while True:
        try:
            return await engine.run()
        except StoreUnavailable:  # there is no database to start with: whoever starts services starts it again
            await asyncio.sleep(0.1)
        finally:
            await store.close()


if __name__ == "__main__":
    asyncio.run(main())
