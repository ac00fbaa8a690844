"""Child processes for activities with `run_in="process"`: killed one by one, replaced when they die.

A child is started when one is needed and kept for the next attempt. An attempt that is cancelled or overruns kills its
child; a child that dies by itself (a crash of native code, the out-of-memory killer) fails its attempt with
`ProcessDied`, which the retry policy judges, and nothing else.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from contextlib import suppress

from derecho.activity import ActivityDefinition
from derecho.errors import ProcessDied
from derecho.executors.child import Beat, Call, Done, Failed, Hello, ToParent, Written, frame
from derecho.journal.failures import type_path
from derecho.journal.payloads import Converter, Payload

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from derecho.executors.child import main; main(int(sys.argv[1]))"
)


class RemoteError(Exception):
    """An attempt in a child raised; `failed` is what it said."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.failure.message)
        self.failed = failed


_LAST_WORDS = 0.5
"""Seconds in which what a dead process has said before is still read."""


class _Child:
    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self.reader = reader
        self.writer = writer

    async def receive(self) -> Beat | Done | Failed:
        head = await self.reader.readexactly(4)
        message: Beat | Done | Failed = ToParent.decode(await self.reader.readexactly(int.from_bytes(head, "big")))
        return message

    async def send(self, message: Hello | Call | Written) -> None:
        self.writer.write(frame(message))
        await self.writer.drain()

    async def end(self) -> int:
        """Kill it and wait until it is gone; its exit code."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)  # Process.kill() may reap it, and its exit code is lost
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
        return await self.process.wait()


class Processes:
    """The children of one engine; whoever asks bounds their number."""

    def __init__(self, converter: Converter) -> None:
        self._hello = Hello(_script(), type_path(type(converter.codec)), converter.limit)
        self._path = json.dumps([os.path.abspath(path) for path in sys.path])
        self._idle: list[_Child] = []
        self._ending: set[asyncio.Task[int]] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(self, call: Call, beat: Callable[[Payload | None], None]) -> Payload:
        """Run an attempt; cancelling this kills its process. Raises RemoteError and ProcessDied."""
        child = await self._take()
        finished = False
        try:
            await child.send(call)
            while True:
                match await child.receive():
                    case Beat(progress):
                        beat(progress)
                        await child.send(Written())
                    case Done(result):
                        finished = True
                        return result
                    case Failed() as failed:
                        finished = True
                        raise RemoteError(failed)
        except (asyncio.IncompleteReadError, OSError):
            code = await asyncio.shield(self._end(child))
            raise ProcessDied(
                f"the process of activity {call.row.name!r} died in attempt {call.row.attempt}: {_describe(code)}"
            ) from None
        except asyncio.CancelledError:
            await asyncio.shield(self._end(child))
            raise
        finally:
            if finished and not self._closed:
                self._idle.append(child)
            elif finished:
                self._end(child)

    async def close(self) -> None:
        self._closed = True
        children, self._idle = self._idle, []
        await asyncio.gather(*(self._end(child) for child in children), *self._ending, return_exceptions=True)

    def _end(self, child: _Child) -> "asyncio.Task[int]":
        task = asyncio.get_running_loop().create_task(child.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    async def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None and not child.reader.at_eof():
                return child
            await asyncio.shield(self._end(child))
        starting = asyncio.get_running_loop().create_task(self._start())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._keep)
            raise

    def _keep(self, starting: "asyncio.Task[_Child]") -> None:
        """Nobody waits any more for a child that was being started: it is idle."""
        if not starting.cancelled() and starting.exception() is None:
            self._end(starting.result()) if self._closed else self._idle.append(starting.result())

    async def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _PROGRAM,
                str(theirs.fileno()),
                self._path,
                stdin=DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        child = _Child(process, reader, writer)
        watch = asyncio.get_running_loop().create_task(_end_with_process(child))
        self._watching.add(watch)
        watch.add_done_callback(self._watching.discard)
        await child.send(self._hello)
        return child


async def _end_with_process(child: _Child) -> None:
    """What a process has forked may hold its socket open: its end is the end of what it says all the same."""
    await child.process.wait()
    await asyncio.sleep(_LAST_WORDS)
    child.writer.transport.abort()


def function_path(definition: ActivityDefinition) -> str:
    """Where a child finds the function: its module by the name under which others import it."""
    module = definition.fn.__module__
    if module == "__main__":
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = spec.name if spec is not None else module
    return f"{module}:{definition.fn.__qualname__}"


def _script() -> str | None:
    """The file of a program that was started as a script, whose module has no name of its own."""
    main = sys.modules.get("__main__")
    if main is None or getattr(main, "__spec__", None) is not None:
        return None
    path = getattr(main, "__file__", None)
    return None if path is None else os.path.abspath(path)


def _describe(code: int) -> str:
    if code >= 0:
        return f"it exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
