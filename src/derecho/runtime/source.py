"""Which line of the author's code asked for something."""

import os
import sys
from types import CodeType, FrameType, TracebackType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (_STDLIB + "site-packages", _STDLIB + "dist-packages")

_OUTERMOST = {"run_until_quiet", "activate"}
"""Our functions inside which workflow code runs; what is behind them is not the author's."""

_OURS = "<derecho>"
_names: dict[str, str | None] = {}
"""By file, not by code: equal code in two files is equal, and hashing it is slow."""


def caller(depth: int = 1) -> str:
    """ "folder/file.py:line" of the nearest frame that is neither ours nor Python's own; "" when there is none."""
    return caller_of(sys._getframe(depth))


def caller_of(frame: FrameType | None) -> str:
    """The same, from a given frame outwards."""
    while frame is not None:
        name = _name(frame.f_code)
        if name is not None:
            return f"{name}:{frame.f_lineno}" if name else ""
        frame = frame.f_back
    return ""


def place_of(error: BaseException) -> str:
    """The author's line that an error was raised at, or under; "" when none of theirs had a part in it."""
    found = ""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        name = _name(traceback.tb_frame.f_code)
        found = f"{name}:{traceback.tb_lineno}" if name else found
        traceback = traceback.tb_next
    return found


def is_ours_or_pythons(code: CodeType) -> bool:
    """Whether a function is none of the author's."""
    return not _name(code)


def _name(code: CodeType) -> str | None:
    filename = code.co_filename
    try:
        name = _names[filename]
    except KeyError:
        name = _names[filename] = _short_name(filename)
    if name is _OURS:
        return "" if code.co_name in _OUTERMOST else None
    return name


def _short_name(filename: str) -> str | None:
    path = os.path.abspath(filename)
    if path.startswith(_PACKAGE):
        return _OURS
    if path.startswith(_STDLIB) and not path.startswith(_INSTALLED):
        return None
    return "/".join(path.split(os.sep)[-2:])
