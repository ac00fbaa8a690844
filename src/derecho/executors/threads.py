"""Threads for plain functions, and a way to tell the code in one of them to stop.

The threads are daemons: code that never ends holds its slot, and never the end of the program. Python can raise an
exception in another thread between two of its bytecodes, so code that waits inside C (a `time.sleep`, a query) learns
of it when that call returns.
"""

import asyncio
import contextvars
import ctypes
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = (ctypes.c_ulong, ctypes.py_object)
_raise_in.restype = ctypes.c_int


class _TooLate(BaseException):
    """Takes the place of an interrupt that nobody is left to meet."""


class Outcome(NamedTuple):
    """What a call gave, or what it raised."""

    value: Any
    error: BaseException | None


class Call:
    """One call of an author's function, in whichever thread takes it.

    `interrupt` raises CancelledError in it, once, and only while the author's code runs: what it hits otherwise would
    be the pool's own code, or the next call in the same thread.
    """

    def __init__(self, fn: Callable[[], Any], context: contextvars.Context) -> None:
        self._fn = fn
        self._context = context
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._told = False
        self._outcome: Outcome | None = None

    def interrupt(self) -> None:
        with self._lock:
            if self._told:
                return
            self._told = True
            if self._thread is not None:
                _raise_in(self._thread, ctypes.py_object(asyncio.CancelledError))

    def run(self) -> Outcome:
        """Call the function; an interrupt that comes too late to stop it takes nothing of its outcome away."""
        error: BaseException | None = None
        try:
            self._enter()
            try:
                self._outcome = Outcome(self._context.run(self._fn), None)
            except BaseException as exc:
                self._outcome = Outcome(None, exc)
            self._leave()
        except asyncio.CancelledError as exc:  # it struck between two lines of this function
            error = exc
            self._leave()
        return self._outcome or Outcome(None, error)

    def _enter(self) -> None:
        with self._lock:
            if self._told:
                raise asyncio.CancelledError
            self._thread = threading.get_ident()

    def _leave(self) -> None:
        with self._lock:
            if self._told and self._thread is not None:
                # Told, and not yet hit. Merely taken back, it would keep CPython looking for it for ever (a process
                # under a profiler or debugger would stand still), so something else strikes in its place, here.
                with suppress(_TooLate):
                    _raise_in(self._thread, ctypes.py_object(_TooLate))
                    threading.get_ident()  # any call is a place to strike
            self._thread = None


class _Order(NamedTuple):
    call: Call
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Outcome]"


class Threads:
    """A pool that grows with what is asked of it; whoever asks bounds that (an engine by its slots)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._started = 0

    def submit(self, call: Call) -> "asyncio.Future[Outcome]":
        """Run a call in a thread; the future of the running loop gets its outcome."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        with self._lock:
            grow = self._idle == 0
            if grow:
                self._started += 1
            else:
                self._idle -= 1
        self._orders.put(_Order(call, loop, future))
        if grow:
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        return future

    def close(self) -> None:
        """Threads end with what they do; new calls must not come."""
        for _ in range(self._started):
            self._orders.put(None)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            outcome = order.call.run()
            with self._lock:
                self._idle += 1
            with suppress(RuntimeError):  # of a loop that was closed: nobody waits there any more
                order.loop.call_soon_threadsafe(_tell, order.future, outcome)
            del order, outcome


def _tell(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)
