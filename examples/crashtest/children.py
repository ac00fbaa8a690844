"""The processes that the demo starts, each known by its pid: nothing else is ever signalled.

Each child holds the reading end of a pipe as its standard input and ends when that closes, so that nothing stays behind
even if the demo itself is killed. Each has a process group of its own: Ctrl-C reaches the demo, which ends them.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

EXAMPLES = Path(__file__).parents[1]


class ChildFailed(Exception):
    """A process ended by itself, or would not start; the message ends with its last words."""


class Child:
    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self.started_at = time.time()
        self._process = process
        self._log = log

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def first_line(self, timeout: float = 10.0) -> str:
        """What it prints when it is ready."""
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        except TimeoutError:
            line = b""
        if not line:
            raise ChildFailed(f"{self.name} did not start{self.last_words()}")
        return line.decode().strip()

    async def kill(self) -> float:
        """SIGKILL: no handler runs, nothing is flushed. Returns the instant."""
        at = time.time()
        self._process.kill()
        await self._process.wait()
        return at

    async def stop(self, timeout: float = 8.0) -> int:
        """SIGTERM, and SIGKILL if that does not help; returns the exit status."""
        if self.is_alive:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), timeout)
            except TimeoutError:
                await self.kill()
        return await self._process.wait()

    def check(self) -> None:
        """Raise ChildFailed if it is gone."""
        code = self._process.returncode
        if code is not None:
            how = f"status {code}" if code >= 0 else signal.Signals(-code).name
            raise ChildFailed(f"{self.name} (pid {self.pid}) ended by itself with {how}{self.last_words()}")

    def last_words(self, lines: int = 15) -> str:
        text = self._log.read_text(errors="replace").strip() if self._log.exists() else ""
        return ":\n" + "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) if text else " (it said nothing)"


class Children:
    """All of them; leaving the context ends those that are left, whatever happened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: list[Child] = []

    async def start(self, name: str, arguments: Sequence[str]) -> Child:
        """Run this Python with these arguments in the folder of the examples; what it says on stderr goes to a log."""
        log = self._folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                cwd=EXAMPLES,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                process_group=0,
            )
        child = Child(name, process, log)
        self._all.append(child)
        return child

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._all:
            if child.is_alive:
                await child.kill()
