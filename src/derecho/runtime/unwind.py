"""Taking a run's code out of memory without letting it act.

A suspended coroutine that is merely dropped gets `GeneratorExit` whenever the garbage collector likes, on whatever
thread, in the middle of another workflow, and its `finally` blocks act. So each fiber gets a `ControlSignal` here, with
its own loop running; whatever it asks for meanwhile is refused.
"""

import asyncio
import contextlib
import logging
from typing import Any

from derecho.runtime.guard import guard
from derecho.runtime.loop import ControlSignal, Fiber, WorkflowLoop
from derecho.runtime.source import caller_of

_PATIENCE = 50
"""How often a fiber that catches the signal is told again."""

_graveyard: list[Fiber[Any]] = []
"""Fibers that refuse to unwind are kept, so that the collector does not finish them inside another workflow."""

log = logging.getLogger("derecho.runtime")


def unwind(loop: WorkflowLoop) -> list[str]:
    """Throw the control signal into every live fiber, newest first; gives the places of those that would not end."""
    stuck = []
    previous = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)
    guard.__enter__()
    try:
        seen: set[int] = set()
        # Clean-up code may make fibers of its own meanwhile; those never began, and are told before they do.
        while fibers := [fiber for key, fiber in loop.fibers.items() if key not in seen]:
            seen.update(loop.fibers)
            for fiber in reversed(fibers):
                if not _take_down(loop, fiber):
                    stuck.append(_place(fiber))
                    _graveyard.append(fiber)
        for agen in loop.async_generators:
            _finish_generator(agen)
    finally:
        guard.__exit__()
        asyncio._set_running_loop(previous)
    if stuck:
        log.error("workflow code catches BaseException and refused to be taken down at %s", ", ".join(stuck))
    return stuck


def _take_down(loop: WorkflowLoop, fiber: Any) -> bool:
    """End one fiber; False when it refuses."""
    fiber._log_destroy_pending = False  # asyncio would complain of a task that it thinks is pending
    if fiber.done():
        fiber._log_traceback = False
    elif _unwind_fiber(loop, fiber):
        _release_waiter(fiber)
    else:
        return False
    return True


def _unwind_fiber(loop: WorkflowLoop, fiber: Fiber[Any]) -> bool:
    coro: Any = fiber.get_coro()
    asyncio.tasks._enter_task(loop, fiber)
    try:
        for _ in range(_PATIENCE):
            try:
                coro.throw(ControlSignal("this run is taken out of memory"))
            except (StopIteration, ControlSignal, asyncio.CancelledError, Exception):
                return True
            except BaseException:  # the author's own BaseException ends the fiber just as well
                return True
        return False
    finally:
        asyncio.tasks._leave_task(loop, fiber)


def _release_waiter(fiber: Fiber[Any]) -> None:
    """A fiber and the future that it waits for hold each other; a cancelled future lets go."""
    waiter: Any = getattr(fiber, "_fut_waiter", None)
    if waiter is not None:
        with contextlib.suppress(BaseException):  # the author's own kind of future may do anything
            waiter.cancel()


def _finish_generator(agen: Any) -> None:
    with contextlib.suppress(BaseException):  # whatever it raises, it is over
        agen.athrow(ControlSignal("this run is taken out of memory")).send(None)


def _place(fiber: Fiber[Any]) -> str:
    """The innermost line of the author's code that a fiber waits at."""
    place = repr(fiber)
    awaited: Any = fiber.get_coro()
    while awaited is not None:
        place = caller_of(getattr(awaited, "cr_frame", None)) or place
        awaited = getattr(awaited, "cr_await", None)
    return place
