"""Time as Derecho counts it: whole microseconds since 1970 in UTC.

Integers, because floats lose microseconds and databases cut nanoseconds. Nothing in `journal` or `runtime` reads a
clock; stores and engines are handed one, so that tests can move it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

Duration = timedelta | float
"""A timedelta, or seconds."""

SECOND = 1_000_000
FOREVER = 2**62
"""An instant after all others; also the cap of arithmetic on instants."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Where a store gets its time from, in microseconds since 1970 UTC."""

    def now(self) -> int: ...

    def subscribe(self, jumped: Callable[[], None]) -> None:
        """Call `jumped` whenever this clock is moved by hand; waits that were computed from it are then stale."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def subscribe(self, jumped: Callable[[], None]) -> None:
        """Never calls back: nobody moves this clock by hand."""


def micros(duration: Duration) -> int:
    """A duration in microseconds; raises ValueError for NaN, OverflowError past 292,000 years, TypeError for others."""
    try:
        result = duration // _MICROSECOND if isinstance(duration, timedelta) else round(duration * SECOND)
    except TypeError:
        raise TypeError(f"a duration is a timedelta or a number of seconds, not {duration!r}") from None
    if abs(result) >= FOREVER:
        raise OverflowError(f"a duration of {duration!r} is longer than Derecho can count")
    return result


def to_datetime(at: int) -> datetime:
    """An instant as an aware datetime in UTC; instants past the year 9999 become its end."""
    try:
        return _EPOCH + timedelta(microseconds=at)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def from_datetime(when: datetime) -> int:
    """Microseconds of an aware datetime; a naive one raises ValueError, because its zone could only be guessed."""
    if when.tzinfo is None:
        raise ValueError(f"{when!r} has no time zone: use an aware datetime, such as datetime.now(UTC)")
    return (when - _EPOCH) // _MICROSECOND
