"""An event loop on virtual time, for several processes at once: each can be stopped, resumed or killed between any two
steps, and when all of them wait, time jumps to whatever comes next.

A step belongs to the process in whose context it was planned. What a dead process had planned never happens: no cleanup
runs, as after SIGKILL. What a stopped one had planned happens when it is resumed.
"""

import asyncio
import contextvars
import heapq
import itertools
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")

State = Enum("State", "RUNNING STOPPED DEAD")


class Process:
    """Something that runs on the loop and can be stopped or killed."""

    is_mortal = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self.held: list[asyncio.Handle] = []
        self.context = contextvars.copy_context()
        self.context.run(_process.set, self)

    def stop(self) -> None:
        self.state = State.STOPPED

    def resume(self) -> None:
        """Everything that it had planned meanwhile happens now, in order."""
        self.state = State.RUNNING
        held, self.held = self.held, []
        loop = asyncio.get_running_loop()
        for handle in held:
            loop._ready.append(handle)  # type: ignore[attr-defined]  # it is ours, see below

    def kill(self) -> None:
        self.state, self.is_mortal = State.DEAD, False


_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _Handle(asyncio.Handle):
    def _run(self) -> None:
        process = self._context.get(_process)  # type: ignore[attr-defined]  # typeshed leaves it out
        if process is None or process.state is State.RUNNING:
            asyncio.Handle._run(self)
        else:
            process.held.append(self)


class _TimerHandle(asyncio.TimerHandle):
    _run = _Handle._run


class Idle(Exception):
    """All wait, and nothing will ever happen."""


class Loop(asyncio.BaseEventLoop):
    """`before_step` is called before each step, with their number so far."""

    def __init__(self) -> None:
        super().__init__()
        self._at = 0.0
        self._later: list[tuple[float, int, asyncio.Handle]] = []
        self._numbers = itertools.count()
        self.steps = 0
        self.before_step: Callable[[], None] = lambda: None
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._at

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Any = None) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]  # of BaseEventLoop
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._at + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = _TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._later, (when, next(self._numbers), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is skipped when it is due."""

    def _run_once(self) -> None:
        ready, later = self._ready, self._later  # type: ignore[attr-defined]  # of BaseEventLoop
        while later and (later[0][2].cancelled() or later[0][0] <= self._at or not ready):
            when, _, handle = heapq.heappop(later)
            if not handle.cancelled():
                self._at = max(self._at, when)
                ready.append(handle)
        if not ready:
            raise Idle
        handle = ready.popleft()
        if not handle.cancelled():
            self.steps += 1
            self.before_step()
            handle._run()

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector."""

    def _process_events(self, event_list: Any) -> None: ...
