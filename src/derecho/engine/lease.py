"""The engine's lease: one row that says "alive until", renewed from a thread of its own.

Code that blocks the engine's loop (a slip in an async activity) must not make the engine look dead. All claims of an
engine hang on this one row, so renewing costs one small commit however much is under way.
"""

import asyncio
import logging
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from derecho.clock import SECOND
from derecho.engine.neighbours import has_died
from derecho.errors import StoreUnavailable
from derecho.journal.changes import BuryWorker, Conflict, RegisterWorker, RenewWorker
from derecho.journal.model import WorkerRow

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

log = logging.getLogger("derecho.engine")

_RENEW = "renew the lease"


class Lease:
    """Keeps the engine's worker row alive. `lost` is called on the engine's loop when it was declared dead."""

    def __init__(self, engine: "Engine", seconds: float) -> None:
        self._engine = engine
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._no_burial_before = 0.0

    async def take(self) -> None:
        """Register this engine, and bury those of this machine that have died; nothing may be claimed before."""
        await self.register()
        await self._engine.persist(self._bury_neighbours, "look for engines that have died here")
        self._thread = threading.Thread(target=self._keep, name="derecho-lease", daemon=True)
        self._thread.start()

    async def register(self) -> None:
        """Make this engine known as alive; repeated until the store takes it."""
        await self._engine.persist(self._register, "register this engine")

    async def _register(self) -> None:
        engine = self._engine
        row = WorkerRow(engine.incarnation, engine.worker_id, self.until(), engine.registry.serves())
        await engine.store.commit([(RegisterWorker(row),)])

    async def _bury_neighbours(self) -> None:
        for worker in await self._engine.store.workers():
            if has_died(worker.name):
                log.warning("engine %s died on this machine: its work is taken over", worker.name)
                await self._engine.store.commit([(RenewWorker(worker.worker, 0), BuryWorker(worker.worker))])

    def until(self) -> int:
        return self._engine.store.now() + round(self.seconds * SECOND)

    def may_bury(self) -> bool:
        """False for one lease after this engine itself was late: then a clock jumped, or the machine slept."""
        return time.monotonic() >= self._no_burial_before

    def renew_soon(self) -> None:
        """The clock was moved, or this engine slept: give the others time to show that they live."""
        self._no_burial_before = time.monotonic() + self.seconds

    def stop(self) -> None:
        self._stop.set()

    def _keep(self) -> None:
        # Not asyncio.run: it goes through all tasks of the process each time, workflow fibers among them.
        with closing(asyncio.new_event_loop()) as loop:
            while not self._stop.wait(self.seconds / 3):
                try:
                    self._renew_there() or loop.run_until_complete(self._renew())
                except StoreUnavailable as exc:
                    self._engine.committer.outage.began(_RENEW, exc)
                except Exception:
                    if not self._stop.is_set():  # else it was cancelled with its loop
                        log.exception("the lease could not be renewed, it will be tried again")

    def _renew_there(self) -> bool:
        """Renew on the engine's loop, which has connections at hand; False when it does not come to it in time."""
        renewal = self._renew()
        try:
            asked = asyncio.run_coroutine_threadsafe(renewal, self._loop)
        except RuntimeError:  # it was closed under the engine
            renewal.close()
            return False
        try:
            asked.result(self.seconds / 6)
        except TimeoutError:
            return not asked.cancel() or self._stop.is_set()
        return True

    async def _renew(self) -> None:
        engine = self._engine
        incarnation = engine.incarnation
        [result] = await engine.store.commit([(RenewWorker(incarnation, self.until()),)])
        engine.committer.outage.over(_RENEW)
        if isinstance(result, Conflict) and not self._stop.is_set() and engine.incarnation == incarnation:
            self._loop.call_soon_threadsafe(engine.lost_lease)
