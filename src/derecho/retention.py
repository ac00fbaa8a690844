"""The retention worker: look for runs that have been closed for long enough, forget them, each with its history.

"Long enough" is by the store's clock. Commits are small and as far apart as each took, so that the store has time for
others. Any number of engines may do this at once, and die in the middle: a run is there as a whole, or gone.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, get_args

from msgspec.structs import replace

from derecho.clock import SECOND
from derecho.journal.changes import ForgetRun
from derecho.journal.model import OPEN, RunFilter, RunRow, Status

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

SHORTEST = 60 * SECOND
"""Twice as long as clients repeat a start of unknown outcome; it would begin once more if its run were forgotten."""

_LOOK_AT, _TASKS = 500, 1_000
"""Runs to look at together; and history rows after which a commit takes no further run."""


class RetentionWorker:
    """Forgets runs that have been closed for `age` microseconds."""

    def __init__(self, engine: "Engine", age: int) -> None:
        self._engine = engine
        self._age = age
        self._pause = min(60 * SECOND, age // 10)

    async def work(self) -> None:
        engine = self._engine
        while True:
            began = engine.store.now()
            for status in sorted(set(get_args(Status)) - OPEN):
                await self._look(status, began - self._age)
            while engine.store.now() < began + self._pause:
                mark = engine.store.seen("timers")
                await engine.store.wait("timers", mark, engine.until(began + self._pause))

    async def _look(self, status: Status, before: int) -> None:
        """Page by page through the runs that began before; there are few, because the pass before forgot most."""
        store, place = self._engine.store, (before, "")
        while True:
            page = partial(store.list_runs, RunFilter(status=status, before=place, limit=_LOOK_AT))
            rows = await self._engine.persist(page, "look for old runs")
            batch: list[ForgetRun] = []
            tasks = 0
            for row in rows:
                place = row.started_at, row.run_id
                if row.closed_at is not None and row.closed_at <= before and not await self._names_a_chain(row):
                    batch.append(ForgetRun(row.run_id))
                    tasks += row.tasks
                if batch and (tasks >= _TASKS or row is rows[-1]):
                    await self._forget(batch)
                    batch, tasks = [], 0
            if len(rows) < _LOOK_AT:
                return

    async def _names_a_chain(self, row: RunRow) -> bool:
        """Whether later runs of its chain are there: it is by the first one that parents and handles find them."""
        if row.status != "continued_as_new" or row.run_id != row.chain_id:
            return False
        store, where = self._engine.store, RunFilter(workflow_id=row.workflow_id, limit=_LOOK_AT)
        while True:
            runs = await self._engine.persist(partial(store.list_runs, where), "look for old runs")
            if any(other.chain_id == row.chain_id and other.run_id != row.run_id for other in runs):
                return True
            if len(runs) < _LOOK_AT:
                return False
            where = replace(where, before=(runs[-1].started_at, runs[-1].run_id))

    async def _forget(self, batch: list[ForgetRun]) -> None:
        """Not by the committer: nobody shall wait for this. What others have forgotten conflicts, and that is fine."""
        began = time.monotonic()
        commit = partial(self._engine.store.commit, [(change,) for change in batch])
        await self._engine.persist(commit, "forget old runs")
        await asyncio.sleep(time.monotonic() - began)
