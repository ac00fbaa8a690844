"""What every store does with a transition: check that its text can be stored, and stop it with a verdict.

A value that one store holds and another cannot would make them differ, so text that some database refuses (a NUL
character, half of a surrogate pair) is refused by all, as a `Conflict` of that transition alone.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, get_args

import msgspec

from derecho.journal.base import snake
from derecho.journal.changes import Change, Conflict, Reason, Receipt, Result, Transition

_encode = msgspec.json.Encoder().encode


class Stop(Exception):
    """Ends a transition early: a conflict, or the discovery that it has been applied before. It leaves no effect."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


REPEATED = Receipt(repeated=True)


def stop(reason: Reason, detail: str = "") -> Stop:
    return Stop(Conflict(reason, detail))


def functions_in(*modules: ModuleType) -> dict[type[Change], Callable[..., Any]]:
    """Which function applies which change: the one of the same name, `create_run` for `CreateRun`."""
    known = {name: value for module in modules for name, value in vars(module).items()}
    return {kind: known[snake(kind.__name__)] for kind in get_args(Change)}


def unfit(transition: Transition) -> Conflict | None:
    """A conflict when some text in it cannot be stored; encoding it as JSON finds out at the speed of C."""
    try:
        data = _encode(transition)
    except (UnicodeEncodeError, OverflowError) as exc:
        return Conflict("unfit", str(exc))
    if b"\\u0000" in data and any(_has_nul(change) for change in transition):
        return Conflict("unfit", "a NUL character")
    return None


def can_be_stored(text: str) -> bool:
    """Whether databases hold such a text; what is sought by another one is not there."""
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, tuple | list):
        return any(_has_nul(item) for item in value)
    if isinstance(value, msgspec.Struct):
        return any(_has_nul(getattr(value, name)) for name in value.__struct_fields__)
    return False
