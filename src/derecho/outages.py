"""While the store is away: ask again with growing pauses, say so once, and once that it is back.

The engine's own work is repeated for ever. A client is patient for as long as a restart or a failover may take, then it
raises what the store said last; it may be so because every call of a client can be repeated.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal, ParamSpec, TypeVar

from derecho.errors import StoreError, StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("derecho.outages")

PATIENCE = 30.0
"""Seconds for which a client repeats a call."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 2.0


def pauses() -> Iterator[float]:
    """Seconds, growing; no two of those who wait come back at the same instant."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1)  # noqa: S311  # not a secret
        pause = min(_LONGEST_PAUSE, pause * 2)


class Outage:
    """What all who ask one store know together of its being away; from any thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._since = 0.0
        self._failing: set[str] = set()

    def began(self, what: str, error: StoreUnavailable) -> None:
        if not self._failing:
            self._since = time.monotonic()
            log.warning("could not %s, and will try again until the store is back: %s", what, error)
        self._failing.add(what)

    def over(self, what: str) -> None:
        """This works again; other things may not yet (a full disk can still be read)."""
        if what in self._failing:
            self._failing.discard(what)
            if not self._failing:
                log.warning("the store at %s is back after %.1f s", self._url, time.monotonic() - self._since)


async def until_answered(
    outage: Outage,
    call: Callable[[], Awaitable[T]],
    what: str,
    unknown: Callable[[], object] | None = None,
    *,
    refusable: bool = False,
) -> T:
    """Ask for an engine, for ever; `unknown` is called when it may have been done without our hearing of it.

    When `refusable`, a StoreError that is no outage is an answer, and raised.
    """
    pause = pauses()
    while True:
        try:
            found = await call()
        except StoreUnavailable as exc:
            outage.began(what, exc)
            if exc.outcome == "unknown" and unknown is not None:
                unknown()
        except StoreError as exc:
            if refusable:
                raise
            log.warning("could not %s, and will try again: %s", what, exc)
        else:
            outage.over(what)
            return found
        await asyncio.sleep(next(pause))


async def patiently(outage: Outage, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Read for a client."""
    give_up_at, pause = time.monotonic() + PATIENCE, pauses()
    while True:
        try:
            found = await call(*args, **kwargs)
        except StoreUnavailable as exc:
            outage.began("read", exc)
            if time.monotonic() >= give_up_at:
                raise given_up(exc, "not_applied") from exc
        else:
            outage.over("read")
            return found
        await asyncio.sleep(next(pause))


def given_up(error: StoreUnavailable, outcome: Literal["not_applied", "unknown"]) -> StoreUnavailable:
    """What a client is told in the end."""
    return StoreUnavailable(f"{error} (tried again for {PATIENCE:g} s)", outcome=outcome)
