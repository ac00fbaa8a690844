"""A deterministic asyncio event loop for one run.

Callbacks run first in, first out. Time is the workflow's, and stands still while code runs; `call_later` becomes a
durable timer of the run. Futures and tasks hash by their creation number, which fixes the order of the sets inside
`asyncio.wait`, `as_completed` and `TaskGroup` (stock asyncio hashes by address: another order in every process), and
what `gather` gives by the number at which it was first put into one.
Everything that would reach outside (sockets, threads, subprocesses, signals) raises `DeterminismError`.
"""

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack

from derecho.errors import DeterminismError
from derecho.runtime.guard import guard
from derecho.runtime.ordering import listed_order
from derecho.runtime.source import caller

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RUNTIME_VERSION = 1
"""Version of the durable contract: order of wake-ups, random streams, identities. Recorded in `WorkflowStarted`."""

_NUMBER_BITS = 24
_SPIN = 10_000
"""Callbacks of one task after which the loop looks whether anything but nagging is left."""


class ControlSignal(BaseException):
    """Derecho takes this run's code down (eviction, shutdown, or its task cannot go on).

    It is not a failure and not a cancellation: clean-up code must let it pass, and whatever it asks for is discarded.
    Code that catches `BaseException` around an await should re-raise it.
    """


class TimerHost(Protocol):
    """Makes durable timers for `call_later`."""

    def start_callback_timer(self, delay: float, handle: "LoopHandle") -> None: ...

    def drop_callback_timer(self, handle: "LoopHandle") -> None: ...


class _Nobody:
    """The host of a loop that has been dissolved."""

    def start_callback_timer(self, delay: float, handle: "LoopHandle") -> None:
        raise ControlSignal("this run is out of memory: nothing it asks for counts")

    def drop_callback_timer(self, handle: "LoopHandle") -> None:
        """There is no timer any more."""


class LoopHandle(asyncio.TimerHandle):
    """A scheduled callback; `timer` is the event id of its durable timer, if it has one."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "loop", "timer", "when_at")

    def __init__(
        self,
        loop: "WorkflowLoop",
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self.loop = loop
        self.callback = callback
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False
        self.timer: int | None = None
        self.when_at = 0.0

    __eq__ = object.__eq__

    def __hash__(self) -> int:
        return hash(self.when_at)

    def __repr__(self) -> str:
        return f"<{self.callback!r} at {self.when_at:g} s>"

    def cancel(self) -> None:
        if not self.is_cancelled:
            self.is_cancelled = True
            if self.timer is not None:
                self.loop.host.drop_callback_timer(self)

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_at


class Future(asyncio.Future[T]):
    """A future of a workflow's loop: what it stands for has started, and cancelling it cancels that.

    A real asyncio future: `gather`, `wait`, `as_completed`, `wait_for` and `timeout` take it.
    """

    __slots__ = ("_hash",)

    def __init__(self, *, loop: "WorkflowLoop") -> None:
        super().__init__(loop=loop)
        loop.numbers = number = loop.numbers + 1
        self._hash = loop.salt | number

    def __hash__(self) -> int:
        return self._hash


class Fiber(asyncio.Task[T]):
    """One coroutine inside a workflow."""

    __slots__ = ("_hash",)

    _must_cancel: bool  # of asyncio.Task: a cancellation that the code has not met yet

    def __init__(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        loop: "WorkflowLoop",
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        loop.numbers = number = loop.numbers + 1
        self._hash = loop.salt | number
        super().__init__(coro, loop=loop, name=name or f"fiber-{loop.numbers}", context=context)

    def __hash__(self) -> int:
        return self._hash


class WorkflowLoop(asyncio.AbstractEventLoop):
    """The event loop of one run; `run_until_quiet` is the only way to move it."""

    def __init__(self, host: TimerHost, salt: int) -> None:
        self.host = host
        self.numbers = 0
        self.fibers: dict[int, Fiber[Any]] = {}
        self.async_generators: list[Any] = []
        self.seconds = 0.0
        self.main: Fiber[Any] | None = None
        self.broken: BaseException | None = None
        # The salt keeps equal numbers of different runs apart in asyncio's process-wide set of tasks; it comes from the
        # run id, and stands above the bits that decide the order in a run's own small sets.
        self.salt = (salt & 0xFFFFFFFF) << _NUMBER_BITS
        self._prune_above = 64
        self._listed: dict[int, Fiber[Any]] = {}
        self._ready: deque[LoopHandle] = deque()

    # --- what a run may use ------------------------------------------------------------------------------------------

    def time(self) -> float:
        return self.seconds

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> LoopHandle:
        handle = LoopHandle(self, callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> LoopHandle:
        return self.call_at(self.seconds + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> LoopHandle:
        if when <= self.seconds:
            handle = self.call_soon(callback, *args, context=context)
        else:
            handle = LoopHandle(self, callback, args, context)
            self.host.start_callback_timer(when - self.seconds, handle)
        handle.when_at = when
        return handle

    def create_future(self) -> Future[Any]:
        return Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> Fiber[T]:
        if not self._listed or id(coro) not in self._listed:
            for sibling in listed_order() or ():
                self._listed[id(sibling)] = self._new_fiber(sibling, None, context)
        made = self._listed.pop(id(coro), None) if self._listed else None
        return made or self._new_fiber(coro, name, context)

    def start_main(self, coro: Coroutine[Any, Any, Any]) -> None:
        """Make the fiber whose end is the run's end."""
        self.main = self._new_fiber(coro, "main", contextvars.Context())

    def _new_fiber(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        name: str | None,
        context: contextvars.Context | None,
    ) -> Fiber[T]:
        fiber = Fiber(coro, loop=self, name=name, context=context)
        # asyncio keeps only weak references to tasks; the run must own its fibers.
        self.fibers[fiber._hash] = fiber
        if len(self.fibers) > self._prune_above:
            self._prune()
        return fiber

    def keep_generator(self, agen: Any) -> None:
        self.async_generators.append(agen)
        if len(self.async_generators) > self._prune_above:
            self._prune()

    def _prune(self) -> None:
        """Let go of what has ended well; amortised, so that ten thousand fibers cost linear time."""
        self.fibers = {
            key: fiber
            for key, fiber in self.fibers.items()
            if not fiber.done() or (not fiber.cancelled() and fiber._log_traceback)
        }
        self.async_generators[:] = [agen for agen in self.async_generators if agen.ag_frame is not None]
        self._prune_above = 2 * max(len(self.fibers), len(self.async_generators)) + 64

    def get_debug(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        """None: fibers are made here and nowhere else."""

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """asyncio's last resort for errors that nobody awaited: not needed, `Execution` judges fibers itself."""

    default_exception_handler = call_exception_handler

    # --- how the execution moves it ----------------------------------------------------------------------------------

    def run_until_quiet(self) -> None:
        """Run callbacks in order until none is left, the main fiber is done, or the task is broken."""
        previous, hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        if hooks.firstiter is not keep_generator:
            sys.set_asyncgen_hooks(firstiter=keep_generator, finalizer=None)
        ready = self._ready
        count = 0
        guard.__enter__()
        try:
            while ready:
                count += 1
                if count % _SPIN == 0 and all(_only_nags(handle) for handle in ready):
                    return
                handle = ready.popleft()
                if handle.is_cancelled:
                    continue
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (Exception, asyncio.CancelledError, SystemExit) as exc:
                    self.call_exception_handler({"message": "callback failed", "exception": exc})
                if self.broken is not None or (self.main is not None and self.main.done()):
                    return
        finally:
            guard.__exit__()
            asyncio._set_running_loop(previous)
            if hooks.firstiter is not keep_generator:
                sys.set_asyncgen_hooks(*hooks)

    def will_be_seen(self, fiber: Fiber[Any]) -> bool:
        """Whether somebody who waited for it, and has not run since, is about to be told how it ended."""
        return any(fiber in handle.args for handle in self._ready)

    def run_handle(self, handle: LoopHandle) -> None:
        """Run what a durable timer was set for."""
        if not handle.is_cancelled:
            handle.context.run(handle.callback, *handle.args)

    def discard_ready(self) -> None:
        self._ready.clear()

    def dissolve(self) -> None:
        """Let go of what points back here, so that a run is freed when it is dropped, not when the collector comes."""
        self.host = _Nobody()
        self.main = None
        self.fibers.clear()
        self.async_generators.clear()


def keep_generator(agen: Any) -> None:
    """Async generators live as long as the run: the collector must not finish one in the middle of something else.

    A thread that does nothing but run workflows has this as its hook for good, because setting it is slow.
    """
    loop = asyncio._get_running_loop()
    if isinstance(loop, WorkflowLoop):
        loop.keep_generator(agen)


@contextmanager
def keeping_generators() -> Iterator[None]:
    """Inside, this thread has the hook that runs need, so that it is not set for each of many workflow tasks."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=keep_generator, finalizer=None)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _only_nags(handle: LoopHandle) -> bool:
    """anyio's cancel scopes call themselves again and again until a task has ended; what it waits for is outside."""
    return getattr(handle.callback, "__name__", "") == "_deliver_cancellation"


_REMEDIES = {
    "run_in_executor": "a thread: put the call into an activity, or into ctx.step for something small",
    "call_soon_threadsafe": "another thread: send the workflow a signal instead",
    "add_signal_handler": "operating system signals: send the workflow a signal from outside",
}


def _forbid(name: str) -> Callable[..., Any]:
    remedy = _REMEDIES.get(name, "the outside world: do it in an activity")

    def forbidden(self: WorkflowLoop, *args: Any, **kwargs: Any) -> Any:
        raise DeterminismError(f"workflow code at {caller(2)} called loop.{name}, which reaches for {remedy}")

    forbidden.__name__ = name
    return forbidden


for _name in dir(asyncio.AbstractEventLoop):
    # Task factories would let foreign code decide how fibers run.
    if not _name.startswith("_") and _name not in vars(WorkflowLoop):
        setattr(WorkflowLoop, _name, _forbid(_name))
WorkflowLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]  # filled in by the loop above


def _number_of_gathering(self: Any) -> int:
    if not hasattr(self, "derecho_hash"):
        loop = self.get_loop()
        self.derecho_hash = hash(Future(loop=loop)) if isinstance(loop, WorkflowLoop) else object.__hash__(self)
    number: int = self.derecho_hash
    return number


# asyncio makes them by itself, and asks no loop for them. Elsewhere they hash as they always did.
asyncio.tasks._GatheringFuture.__hash__ = _number_of_gathering  # type: ignore[attr-defined]  # asyncio's own class


def new_loop(host: TimerHost, salt: int) -> WorkflowLoop:
    return WorkflowLoop(host, salt)  # type: ignore[abstract]  # the rest is forbidden, not missing
