"""The inside of a child process that runs activities, one at a time.

Frames go both ways over one socket: four bytes of length, then JSON. Values stay encoded payloads, and a function is
found by the module and name that its definition has in the parent: code, never data. The process ends when its parent
does.
"""

import asyncio
import contextlib
import ctypes
import importlib
import os
import queue
import runpy
import signal
import socket
import sys
import threading
import types
from typing import Any

import msgspec

from derecho.activity import ActivityDefinition
from derecho.activity_context import ActivityContext, _current
from derecho.errors import DefinitionError, RetryAfter
from derecho.journal.failures import Failure, to_failure
from derecho.journal.model import ActivityRow
from derecho.journal.payloads import Converter, Payload
from derecho.journal.policies import ancestry
from derecho.journal.signatures import Signature

_MAIN = "__derecho_main__"
"""What a script's module is called in a child, so that its `if __name__ == "__main__"` part does not run."""


class Hello(msgspec.Struct, tag=True):
    """The first frame. `main` is the parent's script, if that is what it runs; `codec` is a "module:qualname"."""

    main: str | None
    codec: str
    limit: int


class Call(msgspec.Struct, tag=True):
    """Run an attempt. `function` is "module:qualname"."""

    function: str
    input: tuple[Payload, ...]
    row: ActivityRow
    progress: Payload | None


class Written(msgspec.Struct, tag=True):
    """The parent has the heartbeat: the next one may come."""


class Beat(msgspec.Struct, tag=True):
    """`heartbeat()` was called."""

    progress: Payload | None


class Done(msgspec.Struct, tag=True):
    """The attempt's result."""

    result: Payload


class Failed(msgspec.Struct, tag=True):
    """The attempt's error; `names` are its class and bases, `delay` what a RetryAfter asked for in seconds."""

    failure: Failure
    names: list[str]
    delay: float | None
    refused: bool


ToChild = msgspec.json.Decoder(Hello | Call | Written)
ToParent = msgspec.json.Decoder(Beat | Done | Failed)
_encode = msgspec.json.Encoder().encode


def frame(message: msgspec.Struct) -> bytes:
    data = _encode(message)
    return len(data).to_bytes(4, "big") + data


class Child:
    """The process: `calls` come from the reading thread, heartbeats leave one at a time, always the newest."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._beat: Beat | None = None
        self._beat_sent = False
        self.calls: queue.SimpleQueue[Hello | Call] = queue.SimpleQueue()
        self._hello = Hello(None, "", 0)
        self._converter: Converter | None = None

    def read(self) -> None:
        """The reading thread: ends the process when the parent is gone."""
        with contextlib.suppress(OSError):
            while head := self._exactly(4):
                message = ToChild.decode(self._exactly(int.from_bytes(head, "big")))
                if isinstance(message, Written):
                    self._next_beat(answered=True)
                else:
                    self.calls.put(message)
        os._exit(0)

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self._connection.recv(min(size - len(found), 1 << 20))
            if not piece:
                os._exit(0)
            found += piece
        return bytes(found)

    def beat(self, progress: Payload | None) -> None:
        self._beat = Beat(progress)
        self._next_beat(answered=False)

    def _next_beat(self, *, answered: bool) -> None:
        with self._lock:
            self._beat_sent = self._beat_sent and not answered
            if self._beat is not None and not self._beat_sent:
                beat, self._beat = self._beat, None
                self._beat_sent = True
                self._connection.sendall(frame(beat))

    def send(self, message: Done | Failed) -> None:
        """The end of an attempt; a heartbeat that waits goes first."""
        with self._lock:
            if self._beat is not None:
                self._connection.sendall(frame(self._beat))
            self._beat, self._beat_sent = None, False
            self._connection.sendall(frame(message))

    def serve(self) -> None:
        while True:
            message = self.calls.get()
            if isinstance(message, Hello):
                self._hello = message
            else:
                self.send(self._run(message))

    def _run(self, call: Call) -> Done | Failed:
        """One attempt. Whatever its code raises is its outcome; only the death of the process is none."""
        try:
            if self._converter is None:
                self._converter = Converter(_find(self._hello.codec, self._hello.main)(), self._hello.limit)
            converter = self._converter
            fn, signature = _function(call, self._hello.main)
            args, kwargs = signature.decode(call.input, converter)
        except Exception as exc:
            return _failed(exc, refused=True)
        context = ActivityContext(
            call.row, converter=converter, beat=lambda: self.beat(context._progress), progress=call.progress
        )
        _current.set(context)
        try:
            value = fn(*args, **kwargs)
        except BaseException as exc:
            return _failed(exc, refused=False)
        try:
            return Done(signature.encode_result(value, converter))
        except Exception as exc:
            return _failed(exc, refused=True)


def _failed(error: BaseException, *, refused: bool) -> Failed:
    delay = error.delay.total_seconds() if isinstance(error, RetryAfter) else None
    error = error.__cause__ or error if isinstance(error, RetryAfter) else error
    names = [_renamed(name) for name in ancestry(error)]
    return Failed(_of_main(to_failure(error)), [*names, "builtins:Exception"], delay, refused)


def _of_main(failure: Failure) -> Failure:
    """A script's classes under the name that they have in the parent."""
    cause = None if failure.cause is None else _of_main(failure.cause)
    return msgspec.structs.replace(failure, type=_renamed(failure.type), cause=cause)


def _renamed(path: str) -> str:
    return path.replace(f"{_MAIN}:", "__main__:", 1)


def _function(call: Call, script: str | None) -> tuple[Any, Signature]:
    found = _find(call.function, script)
    if isinstance(found, ActivityDefinition):
        return found.fn, found.signature
    return found, Signature(found, f"activity {call.row.name!r}")


def _find(path: str, script: str | None) -> Any:
    module_name, _, qualname = path.partition(":")
    found: Any = _main(script) if module_name == "__main__" else importlib.import_module(module_name)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


def _main(script: str | None) -> types.ModuleType:
    """The parent's script as a module, as multiprocessing has it."""
    if script is None:
        raise DefinitionError("what runs in a child process must stand in a file that the child can read")
    if _MAIN not in sys.modules:
        module = sys.modules[_MAIN] = types.ModuleType(_MAIN)
        module.__dict__.update(runpy.run_path(script, run_name=_MAIN))
    return sys.modules[_MAIN]


def die_with_parent() -> None:
    """Linux ends this process with its parent even while native code holds the interpreter."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main(descriptor: int) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the engine, which drains
    os.set_inheritable(descriptor, False)  # what the author's code starts must not keep our end open
    child = Child(socket.socket(fileno=descriptor))
    threading.Thread(target=child.read, name="derecho-child", daemon=True).start()
    with contextlib.suppress(asyncio.CancelledError):
        child.serve()
