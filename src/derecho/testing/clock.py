"""A clock that stands still until it is moved, so that a test of a month takes no time."""

import threading
from collections.abc import Callable

from derecho.clock import SECOND

_NEW_YEAR_2026 = 1_767_225_600 * SECOND


class VirtualClock:
    """Microseconds since 1970 UTC, moved by `advance` only. Stores and engines that wait look again when it moves."""

    def __init__(self, start: int = _NEW_YEAR_2026) -> None:
        self._now = start
        self._lock = threading.Lock()
        self._jumped: list[Callable[[], None]] = []

    def now(self) -> int:
        return self._now

    def subscribe(self, jumped: Callable[[], None]) -> None:
        self._jumped.append(jumped)

    def advance(self, micros: int) -> int:
        """Move on, or back when negative, as a machine's clock may be; returns the new instant."""
        with self._lock:
            self._now += micros
        for jumped in self._jumped:
            jumped()
        return self._now
