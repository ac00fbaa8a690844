"""A thread that owns a connection: jobs go in from any event loop, results come back as futures.

A job that was accepted is finished, whether or not its caller still waits. A connection that has lost touch with its
file is closed and opened again for the next job, so that a store works again as soon as the cause is gone.
"""

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from derecho.errors import StoreError
from derecho.stores.sqlite.errors import breaks_connection

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


class Order(NamedTuple):
    """A job for another thread, and whom to tell of its end."""

    job: Job[Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"

    @classmethod
    def of(cls, job: Job[Any]) -> "Order":
        loop = asyncio.get_running_loop()
        return cls(job, loop, loop.create_future())

    def tell(self, how: Callable[["asyncio.Future[Any]", Any], object], what: Any) -> None:
        """Let the future end: `how` is `Future.set_result` or `Future.set_exception`."""
        with suppress(RuntimeError):  # of a loop that was closed: nobody waits there any more
            self.loop.call_soon_threadsafe(lambda: self.future.done() or how(self.future, what))


class ConnectionThread:
    """Runs jobs one after another.

    Args:
        connect: opens the connection; called in the thread, again after the connection broke.
        idle: called in the thread, with the connection, when there is nothing to do; returns after how many seconds it
            wants to be called again if nothing comes, None for never. `nudge` has it called at once.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        idle: Callable[[sqlite3.Connection], float | None] | None = None,
    ) -> None:
        self._connect = connect
        self._idle = idle
        self._connection: sqlite3.Connection | None = None
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._pid = os.getpid()
        self._door = threading.Lock()
        self._stopping = False
        self._idle_at = 0.0
        self._sleeping = False  # without a timeout, so it must be nudged
        # A daemon, so that a program that forgets to close its store can end; what was acknowledged is on disk.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, job: Job[T]) -> T:
        """Do `job` in the thread. Cancelling the caller leaves the job alone."""
        if self._pid != os.getpid():
            raise StoreError("this store was opened before a fork: open another one in the child process")
        order = Order.of(job)
        with self._door:
            if self._stopping:
                raise StoreError("this store is closed")
            self._orders.put(order)
        result: T = await order.future
        return result

    def nudge(self, *, always: bool) -> None:
        """Have `idle` called if it does not want to be called again by itself; `always`: whatever it wants."""
        if always or self._sleeping:
            self._orders.put(None)

    def stop(self) -> None:
        """Finish what was accepted, close the connection, end."""
        with self._door:  # so that nothing is accepted behind the None
            self._stopping = True
            self._orders.put(None)

    def join(self) -> None:
        if self._pid == os.getpid():
            self._thread.join()

    def _work(self) -> None:
        while True:
            order = self._next()
            if order is not None:
                self._do(order)
                if time.monotonic() >= self._idle_at:  # not even a busy thread forgets
                    self._idle_pause()
            elif self._stopping and self._orders.empty():
                break
        self._drop_connection()

    def _next(self) -> Order | None:
        with suppress(queue.Empty):
            return self._orders.get_nowait()
        # The flag is raised before `idle` looks: whoever comes later sees it and nudges.
        self._sleeping = True
        try:
            pause = self._idle_pause()
            self._sleeping = pause is None
            return self._orders.get(timeout=pause)
        except queue.Empty:
            return None
        finally:
            self._sleeping = False

    def _idle_pause(self) -> float | None:
        if self._idle is None or self._connection is None:
            return None
        try:
            pause = self._idle(self._connection)
            self._idle_at = time.monotonic() + (pause or 0.0)
            return pause
        except sqlite3.Error:  # whoever needs the connection will hear of it
            self._drop_connection()
            return None

    def _do(self, order: Order) -> None:
        try:
            if self._connection is None:
                self._connection = self._connect()
            result = order.job(self._connection)
        except BaseException as exc:
            if breaks_connection(exc) or (self._connection is not None and self._connection.in_transaction):
                self._drop_connection()
            order.tell(asyncio.Future.set_exception, exc)
        else:
            order.tell(asyncio.Future.set_result, result)

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()
