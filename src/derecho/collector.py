"""Python's cyclic collector beside an engine.

An engine has thousands of objects in flight that references free in time. Looking through the young ones after every
700 new ones, as CPython does, cost a quarter of the CPU time and found nothing (docs/decisions/0015).
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PACE = 10_000
"""New objects between two looks of the collector while an engine runs."""

_lock = threading.Lock()
_engines = 0
_before = (0, 0, 0)


@contextmanager
def relaxed() -> Iterator[None]:
    """Let the collector look more rarely, in this process, until the last engine has stopped.

    A process that has chosen a slower pace, or none, keeps it; what is set while engines run stays.
    """
    global _engines, _before
    with _lock:
        _engines += 1
        if _engines == 1:
            _before = gc.get_threshold()
            if 0 < _before[0] < PACE:
                gc.set_threshold(PACE, *_before[1:])
    try:
        yield
    finally:
        with _lock:
            _engines -= 1
            if _engines == 0 and gc.get_threshold() == (PACE, *_before[1:]):
                gc.set_threshold(*_before)
