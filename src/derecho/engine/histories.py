"""Reading the histories of runs that are not in memory: what is asked for together is read together.

This is the committer's idea for reads. While one read is under way the next runs gather, and go out together when it is
back: no delay is added when it is quiet, and many runs that wake at one instant cost a few reads. A read that fails
keeps nobody from his history: each of its runs then asks for its own, until the store answers.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from derecho.journal.wire import HistoryRow

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

log = logging.getLogger("derecho.engine")

_EVENTS = 1_000
"""Events in one read, so that a few long histories are neither in memory together nor in the way of short ones."""
_RUNS = 50
_READS = 2
"""Reads under way at once, so that the others go on while one takes long."""


class _Wanted(NamedTuple):
    """A run whose history is asked for. `rows` gets None when it could not be read with the others."""

    run_id: str
    events: int
    rows: "asyncio.Future[list[HistoryRow] | None]"


class Histories:
    """The histories that one engine is reading. All methods run on the engine's loop; `spawn` begins a task."""

    def __init__(self, engine: "Engine", spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._engine = engine
        self._spawn = spawn
        self._waiting: deque[_Wanted] = deque()
        self._reading = 0

    async def load(self, run_id: str, events: int) -> list[HistoryRow]:
        """The history of a run that has about so many events; asks until the store answers.

        Raises StoreError for one that the store cannot read: the page of a file is damaged.
        """
        wanted = _Wanted(run_id, events, asyncio.get_running_loop().create_future())
        self._waiting.append(wanted)
        if self._reading < _READS:
            self._reading += 1
            self._spawn(self._read())
        rows = await wanted.rows
        if rows is None:
            engine = self._engine
            load = partial(engine.store.load, [run_id])
            rows = (await engine.persist(load, "load a history", refusable=True))[run_id]
        return rows

    async def _read(self) -> None:
        try:
            while self._waiting:
                await self._read_together(self._batch())
        finally:
            self._reading -= 1

    def _batch(self) -> list[_Wanted]:
        batch = [self._waiting.popleft()]
        room = _EVENTS - batch[0].events
        while self._waiting and len(batch) < _RUNS and (room := room - self._waiting[0].events) >= 0:
            batch.append(self._waiting.popleft())
        return batch

    async def _read_together(self, batch: list[_Wanted]) -> None:
        found: dict[str, list[HistoryRow]] = {}
        try:
            found = await self._engine.store.load([wanted.run_id for wanted in batch])
        except Exception as exc:  # whoever it is about will see it again
            log.debug("could not load %d histories together: %s", len(batch), exc)
        finally:
            for wanted in batch:
                if not wanted.rows.done():
                    wanted.rows.set_result(found.get(wanted.run_id))
