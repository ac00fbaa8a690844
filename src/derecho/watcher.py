"""Waiting for runs to close.

An engine tells its own client at once when a run closes. For runs that are worked on elsewhere one task looks in the
store for all of them together, whenever the store hints that something closed, and once a second in any case.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from derecho.errors import PayloadError, StoreError
from derecho.journal.events import Event, Terminal
from derecho.journal.model import RunRow, Status
from derecho.journal.store import Store

_outcome: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Terminal)

Closing = tuple[Status, Event]

_PATIENCE = 1.0
"""Seconds after which a run that is worked on here is looked at all the same."""

_TOLD = "the client was closed while a result was awaited"


def decode_outcome(data: str | None) -> Event:
    event: Event = _outcome.decode(data or "")
    return event


class ResultWatcher:
    """Futures of closing runs. `is_here` says whether this process works on a run, so that it will be told."""

    def __init__(self, store: Store, is_here: Callable[[str], bool]) -> None:
        self._store = store
        self._is_here = is_here
        self._waiting: dict[str, list[asyncio.Future[Closing]]] = {}
        self._task: asyncio.Task[None] | None = None
        self.closings = 0

    async def wait(self, run_id: str, closings: int) -> Closing:
        """How the run closed; waits until it does. `closings`: as they were when the caller began to ask."""
        if self.closings != closings:
            raise StoreError(_TOLD)
        future: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run_id, []).append(future)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look(), name="derecho-results")
        try:
            return await future
        finally:
            futures = self._waiting.get(run_id)
            if futures is not None and future in futures:
                futures.remove(future)
                if not futures:
                    del self._waiting[run_id]

    def closed(self, run_id: str, status: Status, outcome: Event) -> None:
        for future in self._waiting.pop(run_id, ()):
            if not future.done():
                future.set_result((status, outcome))

    def _tell(self, row: RunRow) -> None:
        try:
            self.closed(row.run_id, row.status, decode_outcome(row.outcome))
        except msgspec.DecodeError as exc:
            for future in self._waiting.pop(row.run_id, ()):
                if not future.done():
                    future.set_exception(PayloadError(f"the outcome of run {row.run_id} cannot be read: {exc}"))

    def close(self) -> None:
        self.closings += 1
        if self._task is not None:
            self._task.cancel()
            self._task = None
        for run_id in list(self._waiting):
            for future in self._waiting.pop(run_id):
                if not future.done():
                    future.set_exception(StoreError(_TOLD))

    async def _look(self) -> None:
        try:
            looked_at: set[str] = set()
            loop = asyncio.get_running_loop()
            again = loop.time() + _PATIENCE
            while self._waiting:
                if loop.time() >= again:  # a run that is here may have been gone on with, or ended, elsewhere
                    looked_at, again = set(), loop.time() + _PATIENCE
                mark = self._store.seen("closed")
                elsewhere = [run_id for run_id in self._waiting if not self._is_here(run_id) or run_id not in looked_at]
                try:
                    if elsewhere:
                        for row in await self._store.closed(elsewhere):
                            self._tell(row)
                    looked_at = set(self._waiting)
                    if any(not self._is_here(run_id) for run_id in self._waiting):
                        await self._store.wait("closed", mark, 1.0)
                    elif self._waiting:
                        await asyncio.sleep(0.25)
                except StoreError:
                    await asyncio.sleep(0.25)  # the engine logs it; whoever waits sets the limit
        finally:
            self._task = None
