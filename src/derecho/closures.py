"""What a closure gives: the result type of steps and side effects."""

import typing
from collections.abc import Callable
from typing import Any

from derecho.journal.signatures import UNTYPED, read_hints

_types: dict[Any, Any] = {}


def result_type(fn: Callable[..., Any], given: Any, what: str) -> Any:
    """The result type of a closure: as given, as annotated, or UNTYPED. Kept per code object, not per closure."""
    if given is not None:
        return given
    code = getattr(fn, "__code__", None)
    if code is None:
        target = getattr(fn, "__wrapped__", fn)
        return typing.get_type_hints(target).get("return", UNTYPED) if hasattr(target, "__annotations__") else UNTYPED
    try:
        return _types[code]
    except KeyError:
        names = {name: cell for name, cell in _closure(fn).items() if isinstance(cell, type)}
        found = _types[code] = read_hints(fn, what, names or None).get("return", UNTYPED)
        return found


def _closure(fn: Callable[..., Any]) -> dict[str, Any]:
    cells = getattr(fn, "__closure__", None) or ()
    found = {}
    for name, cell in zip(fn.__code__.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a name that is bound only later
            continue
    return found
