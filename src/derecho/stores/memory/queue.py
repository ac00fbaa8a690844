"""Instants with keys, soonest first: a heap from which nothing is ever removed but its head.

An entry stays until it is met; whether it still holds is asked then. So adding costs O(log n), cancelling nothing, and
a heap that has doubled is rid of what no longer holds.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", str, tuple[str, int])


class InstantQueue(Generic[K]):
    """`holds(at, key)` says whether an entry is still true. Doubled entries count once."""

    __slots__ = ("_entries", "_holds", "_limit")

    def __init__(self, holds: Callable[[int, K], bool]) -> None:
        self._entries: list[tuple[int, K]] = []
        self._holds: Callable[[int, K], bool] = holds
        self._limit = 1_024

    def add(self, at: int, key: K) -> None:
        heapq.heappush(self._entries, (at, key))
        if len(self._entries) > self._limit:
            self._entries = [entry for entry in set(self._entries) if self._holds(*entry)]
            heapq.heapify(self._entries)
            self._limit = max(1_024, 2 * len(self._entries))

    def first(self) -> tuple[int, K] | None:
        """The soonest entry that holds; it stays."""
        entries = self._entries
        while entries:
            if self._holds(*entries[0]):
                return entries[0]
            heapq.heappop(entries)
        return None

    def pop(self) -> None:
        """Remove what `first` returned."""
        heapq.heappop(self._entries)

    def look(self, until: int, limit: int) -> tuple[list[K], int | None]:
        """Up to `limit` keys of instants not after `until`, and the first instant behind them; nothing is taken."""
        found: list[tuple[int, K]] = []
        entry = self.first()
        while entry is not None and entry[0] <= until and len(found) < limit:
            while self._entries and self._entries[0] == entry:
                self.pop()
            found.append(entry)
            entry = self.first()
        for again in found:
            heapq.heappush(self._entries, again)
        return [key for _, key in found], None if entry is None else entry[0]


def first(queues: Sequence[InstantQueue[K]]) -> int | None:
    """The soonest instant of several queues."""
    return min((entry[0] for queue in queues if (entry := queue.first()) is not None), default=None)


def take(queues: Sequence[InstantQueue[K]], until: int, limit: int) -> list[tuple[int, K]]:
    """Remove up to `limit` entries that are not after `until` from several queues, soonest first."""
    heads = [(entry, number) for number, queue in enumerate(queues) if (entry := queue.first()) and entry[0] <= until]
    heapq.heapify(heads)
    taken: list[tuple[int, K]] = []
    while heads and len(taken) < limit:
        entry, number = heapq.heappop(heads)
        queue = queues[number]
        taken.append(entry)
        following: tuple[int, K] | None = entry
        while following == entry:  # doubled entries count once
            queue.pop()
            following = queue.first()
        if following is not None and following[0] <= until:
            heapq.heappush(heads, (following, number))
    return taken
