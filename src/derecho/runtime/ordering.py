"""Giving bare coroutines an order where asyncio has none.

`asyncio.as_completed` puts what it is given into a set before it makes tasks of it; a set of coroutines is ordered by
address, so another process would start them in another order. The loop asks here when asyncio makes a task for it, and
makes all of that call's tasks at once, in the order in which the author listed them.
"""

import asyncio
import sys
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from derecho.errors import DeterminismError
from derecho.runtime.source import caller_of

_MAKERS = {
    getattr(asyncio.tasks, name).__code__
    for name in ("ensure_future", "_ensure_future")
    if hasattr(asyncio.tasks, name)
}


def listed_order(depth: int = 2) -> list[Coroutine[Any, Any, Any]] | None:
    """The coroutines of the `as_completed` call that is making tasks now, in the author's order; None without one."""
    frame: FrameType | None = sys._getframe(depth)
    if frame is None or frame.f_code not in _MAKERS:
        return None
    for _ in range(5):
        frame = frame.f_back
        if frame is None or "asyncio" not in frame.f_code.co_filename:
            return None
        is_iterator = frame.f_code.co_name == "__init__" and "aws" in frame.f_locals
        if frame.f_code.co_name == "as_completed" or is_iterator:
            given = frame.f_locals.get("fs", frame.f_locals.get("aws"))
            if not isinstance(given, (list, tuple)):
                raise DeterminismError(
                    f"asyncio.as_completed at {caller_of(frame)} was given coroutines in a {type(given).__name__}, "
                    "which has no order that a replay could repeat: pass a list"
                )
            for item in given:
                if not asyncio.iscoroutine(item) and not asyncio.isfuture(item):
                    raise DeterminismError(
                        f"asyncio.as_completed at {caller_of(frame)} was given a {type(item).__name__}, which it wraps "
                        "in an order that a replay could not repeat: pass coroutines, or futures of ctx"
                    )
            return [item for item in given if asyncio.iscoroutine(item)]
    return None
