"""What a closure gives: the result type of steps and side effects."""

import typing
from collections.abc import Callable
from typing import Any

from derecho.journal.signatures import UNTYPED, read_hints

_types: dict[int, tuple[Any, Any]] = {}
"""By the id of a code object, with the object itself: equal code in two places need not give the same."""


def result_type(fn: Callable[..., Any], given: Any, what: str) -> Any:
    """The result type of a closure: as given, as annotated, or UNTYPED. Kept per code object, not per closure."""
    if given is not None:
        return given
    if not hasattr(fn, "__code__"):
        fn = getattr(fn, "__wrapped__", fn)
    code = getattr(fn, "__code__", None)
    if code is None:
        return typing.get_type_hints(fn).get("return", UNTYPED) if hasattr(fn, "__annotations__") else UNTYPED
    known = _types.get(id(code))
    if known is None:
        names = {name: cell for name, cell in _closure(fn).items() if isinstance(cell, type)}
        known = _types[id(code)] = code, read_hints(fn, what, names or None).get("return", UNTYPED)
    return known[1]


def _closure(fn: Callable[..., Any]) -> dict[str, Any]:
    cells = getattr(fn, "__closure__", None) or ()
    found = {}
    for name, cell in zip(fn.__code__.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a name that is bound only later
            continue
    return found
