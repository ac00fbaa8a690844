"""How many attempts an engine runs at once, and how many it may promise to run soon.

A slot is *taken* from the moment an activity is claimed until its attempt has ended; it is *entered* while the attempt
runs, and never by more than there are. Between the two lies a commit. Where attempts are short, others end meanwhile,
so more may be taken than there are; who then finds no slot to enter waits in line (see `ActivityWorker`).
"""

import asyncio
from collections.abc import Callable

PATIENCE = 0.02
"""Seconds for which an attempt may wait in line for a slot."""

_STEADINESS = 16
"""Attempts over which the time that one takes is averaged."""

_SHORTEST, _LONG = 0.001, 1.0
"""Seconds that count for an attempt that takes less, which bounds what is promised; and for one of which nothing is
known."""


class Slots:
    """Counters that can be waited for. An attempt in a child process takes one of both kinds.

    `found` is called when a slot of a child process has been given back that was missed before.
    """

    def __init__(self, total: int, processes: int, found: Callable[[], None] = lambda: None) -> None:
        self._total = total
        self._free = total  # less than nothing while more are taken than there are
        self._free_processes = processes
        self._entered = 0
        self._seconds = _LONG  # that an attempt takes, on average
        self._changed = asyncio.Event()
        self._found = found
        self._is_missed = False

    def room(self, *, in_process: bool, promised: bool = True) -> int:
        """How many activities may be claimed now, whether in the commit that schedules them or from the store.

        Those that are free; and when `promised`, where attempts are shorter than one may wait, as many more as will be
        given back within that time. Child processes are never promised.
        """
        if in_process:
            return max(0, min(self._free, self._free_processes))
        more = int(self._total * PATIENCE / self._seconds) if promised and self._seconds <= PATIENCE else 0
        return max(0, self._free + more)

    def take(self, count: int, *, in_process: bool) -> None:
        self._free -= count
        self._free_processes -= count if in_process else 0

    def release(self, count: int, *, in_process: bool) -> None:
        self._free += count
        self._free_processes += count if in_process else 0
        if count:
            self._changed.set()
        if self._is_missed and self._free > 0 and self._free_processes > 0:
            self._is_missed = False
            self._found()

    def enter(self) -> bool:
        """Begin to run in a slot that was taken; False when something runs in each."""
        if self._entered >= self._total:
            return False
        self._entered += 1
        return True

    def leave(self, seconds: float) -> None:
        """An attempt that had entered has ended, `seconds` later."""
        self._entered -= 1
        self._seconds += (max(seconds, _SHORTEST) - self._seconds) / _STEADINESS

    def slow_down(self) -> None:
        """Somebody waited in vain: promise nothing until many attempts have been short."""
        self._seconds = max(self._seconds, _LONG)

    def miss(self) -> None:
        """There is none for a child process, although there are others."""
        self._is_missed = True

    async def changed(self) -> None:
        """Wait until a slot has been given back."""
        self._changed.clear()
        await self._changed.wait()
