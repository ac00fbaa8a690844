"""A clock that stands still until a test moves it."""

from collections.abc import Callable

from derecho.clock import SECOND, Duration, micros

START = 1_700_000_000 * SECOND
"""2023-11-14 22:13:20 UTC, when all tests begin."""


class StandingClock:
    """Implements `derecho.clock.Clock`."""

    def __init__(self, at: int = START) -> None:
        self.at = at
        self._jumped: list[Callable[[], None]] = []

    def now(self) -> int:
        return self.at

    def subscribe(self, jumped: Callable[[], None]) -> None:
        self._jumped.append(jumped)

    def advance(self, duration: Duration) -> None:
        """Move on, or back; whoever waits for an instant looks again."""
        self.at += micros(duration)
        for jumped in self._jumped:
            jumped()
