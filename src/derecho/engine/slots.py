"""How many attempts an engine runs at once, and how many it may promise to run soon.

A slot is *taken* from the moment an activity is claimed until its attempt has ended; it is *entered* while the attempt
runs, and never by more than there are. Between the two lies a commit. Where attempts are short, others end meanwhile,
so more may be taken than there are; who then finds no slot to enter waits in line (see `ActivityWorker`).
"""

import asyncio

PATIENCE = 0.02
"""Seconds for which an attempt may wait in line for a slot."""

_STEADINESS = 16
"""Attempts over which the time that one takes is averaged."""

_SHORTEST = 0.001
"""Seconds that count for one that takes less, which bounds what is promised."""


class Slots:
    """Counters that can be waited for. An attempt in a child process takes one of both kinds."""

    def __init__(self, total: int, processes: int) -> None:
        self._total = total
        self._free = total  # less than nothing while more are taken than there are
        self._free_processes = processes
        self._entered = 0
        self._seconds = 1.0  # that an attempt takes, on average; at first as if they were long
        self._changed = asyncio.Event()

    def free(self, *, in_process: bool) -> int:
        return min(self._free, self._free_processes) if in_process else self._free

    def may_take(self, *, in_process: bool) -> bool:
        """Whether an activity may be claimed whose commit is still to come.

        Beyond those that are free, as many may be taken as will be given back while it could wait in line.
        """
        if in_process:
            return self.free(in_process=True) > 0
        return self._free > 0 or 1 - self._free <= self._total * PATIENCE / self._seconds

    def take(self, count: int, *, in_process: bool) -> None:
        self._free -= count
        self._free_processes -= count if in_process else 0

    def release(self, count: int, *, in_process: bool) -> None:
        self._free += count
        self._free_processes += count if in_process else 0
        if count:
            self._changed.set()

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
        """The line did not move in time: promise nothing until many attempts have been short."""
        self._seconds = max(self._seconds, 1.0)

    async def changed(self) -> None:
        """Wait until a slot has been given back."""
        self._changed.clear()
        await self._changed.wait()
