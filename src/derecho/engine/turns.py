"""The thread on which workflow code runs.

User code that blocks must not stop the engine's I/O or its lease, so turns go over to a thread of their own; they come
back in batches, so that the hop costs little under load. A turn that holds the thread for longer than the limit is
reported with the line that blocks, its thread is left to it, and the other runs go on in a new one.
"""

import asyncio
import logging
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from derecho.runtime.loop import keep_generator
from derecho.runtime.source import caller_of

log = logging.getLogger("derecho.engine")

CROWD = 100
"""Jobs that may wait before no more work is looked for. A few runs taken far cost less than many taken a step: caches
agree, and so do the other engines, who find something left for them."""


class Job(Protocol):
    """Something to do on the workflow thread."""

    def run(self, mark: Callable[[], None]) -> None:
        """Do it, and keep the outcome; must not raise. Call `mark` whenever the author's code is about to run."""

    def abandon(self) -> None:
        """On the thread, after `run`, when nobody waits for the outcome any more."""


class Turns:
    """A workflow thread for one engine; all methods are called on the engine's loop.

    `done` gets each finished job; `stuck` a job that blocks, its seconds and the text of its stack.
    """

    def __init__(
        self, done: Callable[[Job], None], stuck: Callable[[Job, float, str], None], limit: float | None
    ) -> None:
        self._done = done
        self._stuck = stuck
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._lane: _Lane | None = None
        self.outstanding = 0
        self._room = asyncio.Event()
        self._room.set()
        self._watch: asyncio.TimerHandle | None = None

    def submit(self, job: Job) -> None:
        if self._lane is None:
            self._lane = _Lane(self._loop, self._deliver)
        self.outstanding += 1
        self._lane.jobs.put(job)
        if self._watch is None and self._limit is not None:
            self._watch = self._loop.call_later(self._limit / 2, self._look)

    async def room(self) -> None:
        """Wait until the thread has less to do than what would be a crowd."""
        if self.outstanding >= CROWD:
            self._room.clear()
            await self._room.wait()

    def held(self) -> float:
        """Seconds for which the job at hand has had the thread."""
        current, since = (None, 0.0) if self._lane is None else self._lane.current
        return 0.0 if current is None else time.monotonic() - since

    def close(self) -> None:
        """No more jobs; the thread ends when it has done what it has."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._lane is not None:
            self._lane.jobs.put(None)
            self._lane = None

    def _deliver(self, lane: "_Lane") -> None:
        lane.told = False
        while lane.finished and not lane.abandoned:
            self._finish(lane.finished.popleft())
        if self.outstanding < CROWD:
            self._room.set()

    def _look(self) -> None:
        self._watch = None
        lane, limit = self._lane, self._limit
        if lane is None or limit is None or self.outstanding == 0:
            return
        current, held = lane.current[0], self.held()
        if current is not None and held > limit:
            stack = lane.stack()
            if lane.abandon(current):
                self._lane = lane.replace()
                self.outstanding -= 1
                while lane.finished:  # before it got stuck
                    self._finish(lane.finished.popleft())
                self._stuck(current, held, stack)
        self._watch = self._loop.call_later(limit / 2, self._look)

    def _finish(self, job: Job) -> None:
        self.outstanding -= 1
        try:
            self._done(job)
        except Exception:
            log.exception("what a turn led to failed; its run is found again by its lease")


class _Lane:
    """One thread and its queue. `current` is the job at hand and when its user code was last entered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[["_Lane"], None]) -> None:
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.finished: deque[Job] = deque()
        self.current: tuple[Job | None, float] = (None, 0.0)
        self.abandoned = False
        self.told = False
        self._loop = loop
        self._deliver = deliver
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="derecho-workflows", daemon=True)
        self._thread.start()

    def abandon(self, job: Job) -> bool:
        """Leave the thread to the job that it is stuck in, and end it then; False when that has ended meanwhile."""
        with self._lock:
            self.abandoned = self.current[0] is job
            return self.abandoned

    def replace(self) -> "_Lane":
        """A new thread that takes over the waiting jobs."""
        successor = _Lane(self._loop, self._deliver)
        while True:
            try:
                successor.jobs.put(self.jobs.get_nowait())
            except queue.Empty:
                break
        self.jobs.put(None)
        return successor

    def stack(self) -> str:
        """Where the thread is now: the author's line first, then the whole stack."""
        frame: FrameType | None = sys._current_frames().get(self._thread.ident or 0)
        if frame is None:
            return "(the thread has no frame)"
        return f"{caller_of(frame)}\n" + "".join(traceback.format_stack(frame))

    def _work(self) -> None:
        job: Job | None
        sys.set_asyncgen_hooks(firstiter=keep_generator, finalizer=None)
        while (job := self.jobs.get()) is not None:
            self.current = (job, time.monotonic())
            job.run(self._mark)
            self.current = (None, 0.0)
            with self._lock:
                if not self.abandoned:
                    self.finished.append(job)
            if self.abandoned:
                job.abandon()
                return
            if not self.told:
                self.told = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver, self)
                except RuntimeError:
                    return  # the loop was closed under the engine: there is nobody to tell
            job = None  # while this thread waits, what has ended must not live on in it

    def _mark(self) -> None:
        self.current = (self.current[0], time.monotonic())
