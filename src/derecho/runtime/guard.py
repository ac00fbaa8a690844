"""Keeps workflow code from reaching outside while it runs: one audit hook for the process.

The interpreter reports `open`, sockets, subprocesses, threads and the like as audit events, on the thread that does
them. While a run's code has the thread, such an event raises `DeterminismError` at the line that did it. Imports,
logging, time zones and the reading of source lines for tracebacks are let through. It is a net for slips, not a wall.
"""

import sys
import threading
from types import FrameType
from typing import Any

from derecho.errors import DeterminismError
from derecho.runtime.source import caller_of

_FORBIDDEN = {
    "open": "files",
    "os.listdir": "files",
    "os.scandir": "files",
    "os.mkdir": "files",
    "os.remove": "files",
    "os.rename": "files",
    "os.rmdir": "files",
    "shutil.copyfile": "files",
    "shutil.move": "files",
    "shutil.rmtree": "files",
    "tempfile.mkstemp": "files",
    "tempfile.mkdtemp": "files",
    "glob.glob": "files",
    "sqlite3.connect": "a database",
    "socket.__new__": "the network",
    "socket.connect": "the network",
    "socket.bind": "the network",
    "socket.getaddrinfo": "the network",
    "urllib.Request": "the network",
    "http.client.connect": "the network",
    "smtplib.connect": "the network",
    "subprocess.Popen": "other processes",
    "os.system": "other processes",
    "os.exec": "other processes",
    "os.fork": "other processes",
    "os.posix_spawn": "other processes",
    "os.spawn": "other processes",
    "_thread.start_new_thread": "threads",
    "_thread.start_joinable_thread": "threads",
    "time.sleep": "the wall clock (use ctx.sleep or asyncio.sleep)",
}
_TRUSTED = ("importlib", "_frozen_importlib", "logging", "linecache", "traceback", "warnings", "tokenize")


class _State(threading.local):
    active = False


_state = _State()
_installed = threading.Lock()
_hooked = False


class Guard:
    """`with guard:` around workflow code; cheap, because it only sets a flag of this thread."""

    def __enter__(self) -> None:
        if not _hooked:
            _install()
        _state.active = True

    def __exit__(self, *_: object) -> None:
        _state.active = False


guard = Guard()


def _install() -> None:
    global _hooked
    with _installed:
        if not _hooked:
            sys.addaudithook(_hook)
            _hooked = True


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if event not in _FORBIDDEN or not _state.active:
        return
    frame = sys._getframe(1)
    if _is_trusted(frame) or (event == "open" and _is_time_zone(args[0])):
        return
    what = _FORBIDDEN[event]
    raise DeterminismError(
        f"workflow code at {caller_of(frame) or 'an unknown line'} reached for {what} ({event}): "
        "a replay would do it again, with another result. Do it in an activity, or in ctx.step for something small"
    )


def _is_time_zone(path: object) -> bool:
    """`ZoneInfo` reads a zone once in the life of a process."""
    zoneinfo = sys.modules.get("zoneinfo")
    return zoneinfo is not None and str(path).startswith(zoneinfo.TZPATH)


def _is_trusted(frame: FrameType | None) -> bool:
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in _TRUSTED:
            return True
        frame = frame.f_back
    return False
