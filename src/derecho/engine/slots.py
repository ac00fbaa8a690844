"""How many attempts an engine runs at once: all together, and in child processes."""

import asyncio


class Slots:
    """Counters that can be waited for. An attempt in a child process takes one of both kinds."""

    def __init__(self, total: int, processes: int) -> None:
        self._free = total
        self._free_processes = processes
        self._changed = asyncio.Event()

    def free(self, *, in_process: bool) -> int:
        return min(self._free, self._free_processes) if in_process else self._free

    def take(self, count: int, *, in_process: bool) -> None:
        self._free -= count
        self._free_processes -= count if in_process else 0

    def release(self, count: int, *, in_process: bool) -> None:
        self._free += count
        self._free_processes += count if in_process else 0
        if count:
            self._changed.set()

    async def changed(self) -> None:
        """Wait until a slot has been given back."""
        self._changed.clear()
        await self._changed.wait()
