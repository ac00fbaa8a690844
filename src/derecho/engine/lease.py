"""The engine's lease: one row that says "alive until", renewed by a worker of the engine, and by a thread if need be.

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
_LATE = 0.7
"""The part of the lease after which its thread does not wait for the loop any longer."""


class Lease:
    """Keeps the engine's worker row alive. `lost` is called on the engine's loop when it was declared dead."""

    def __init__(self, engine: "Engine", seconds: float) -> None:
        self._engine = engine
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._no_burial_before = 0.0
        self._renewed_at = time.monotonic()

    async def take(self) -> None:
        """Register this engine, and bury those of this machine that have died; nothing may be claimed before."""
        await self.register()
        await self._engine.persist(self._bury_neighbours, "look for engines that have died here")
        self._thread = threading.Thread(target=self._keep_there, name="derecho-lease", daemon=True)
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

    async def keep(self) -> None:
        """Renew on the engine's loop, which has connections at hand, twice per lease or oftener.

        Each second time is an instant at which the other workers look, too. When it fails, the thread tries again.
        """
        while True:
            await asyncio.sleep(self._engine.beat(self._engine.poll_interval / 2))
            await self._renew()
            self._engine.activities.look()
            self._engine.workflows.steps.look()

    def _keep_there(self) -> None:
        """Renew in the thread when the loop has not."""
        pause, late = 0.0, _LATE * self.seconds
        # Not asyncio.run: it goes through all tasks of the process each time, workflow fibers among them.
        with closing(asyncio.new_event_loop()) as loop:
            while not self._stop.wait(pause) and not self._loop.is_closed():
                try:
                    if time.monotonic() >= self._renewed_at + late:
                        loop.run_until_complete(self._renew())
                except Exception:
                    if not self._stop.is_set():  # else the store was closed meanwhile
                        log.exception("the lease could not be renewed, it will be tried again")
                pause = max(late / 4, self._renewed_at + late - time.monotonic())

    async def _renew(self) -> None:
        engine = self._engine
        incarnation, began = engine.incarnation, time.monotonic()
        try:
            [result] = await engine.store.commit([(RenewWorker(incarnation, self.until()),)])
        except StoreUnavailable as exc:
            engine.committer.outage.began(_RENEW, exc)
            return
        self._renewed_at = began
        engine.committer.outage.over(_RENEW)
        if isinstance(result, Conflict) and not self._stop.is_set() and engine.incarnation == incarnation:
            self._loop.call_soon_threadsafe(engine.lost_lease)
