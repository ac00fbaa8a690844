"""Which workflows and activities a workflow's code can ask for, by the names that it and its functions use."""

from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any

from derecho.invocation import Definition
from derecho.runtime.source import is_ours_or_pythons

_DEPTH = 12


def reachable(definition: Definition) -> list[Definition]:
    """The definition, and all that its code names, directly or in functions and workflows that it names."""
    found: dict[int, Definition] = {}
    seen: set[int] = set()
    _visit(definition, found, seen, 0)
    return list(found.values())


def _visit(value: Any, found: dict[int, Definition], seen: set[int], depth: int) -> None:
    if id(value) in seen or depth > _DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, Definition):
        found[id(value)] = value
        if value.kind == "workflow":
            _visit(getattr(value, "fn", None), found, seen, depth + 1)
    elif isinstance(value, FunctionType):
        if is_ours_or_pythons(value.__code__):
            return
        for named in _named(value):
            _visit(named, found, seen, depth + 1)
    elif isinstance(value, (list, tuple)):
        for item in value[:1000]:
            _visit(item, found, seen, depth + 1)
    elif isinstance(value, dict):
        for item in list(value.values())[:1000]:
            _visit(item, found, seen, depth + 1)


def _named(fn: FunctionType) -> Iterator[Any]:
    """What the names in a function's code stand for: globals, what closures hold, attributes of modules."""
    names = set(_names(fn.__code__))
    for cell in fn.__closure__ or ():
        with suppress(ValueError):  # not assigned yet
            yield cell.cell_contents
    for name in sorted(names):
        value = fn.__globals__.get(name)
        if isinstance(value, ModuleType):
            for attribute in sorted(names):
                inner = vars(value).get(attribute)
                if isinstance(inner, (Definition, FunctionType)):
                    yield inner
        elif isinstance(value, type):
            yield from (item for item in vars(value).values() if isinstance(item, (Definition, FunctionType)))
        elif value is not None:
            yield value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
