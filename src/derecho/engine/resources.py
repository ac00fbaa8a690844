"""What activities share: objects by type, and factories that an engine opens when it starts and closes when it stops.

A value that is no instance of its type and can be called is a factory: it gives the object, an awaitable of it, or a
context manager (of either colour) that gives it and cleans up.
"""

import inspect
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any

from derecho.errors import DefinitionError

Resources = Mapping[type[Any], Any]


async def open_resources(given: Resources, stack: AsyncExitStack) -> dict[type[Any], Any]:
    """The objects by type; what has to be closed is put on `stack`, to be closed in reverse."""
    return {kind: await _open(kind, value, stack) for kind, value in given.items()}


async def _open(kind: type[Any], value: Any, stack: AsyncExitStack) -> Any:
    if not _is_factory(kind, value):
        return value
    made = value()
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AbstractAsyncContextManager):
        made = await stack.enter_async_context(made)
    elif isinstance(made, AbstractContextManager):
        made = stack.enter_context(made)
    if made is None:
        raise DefinitionError(f"the factory of the resource {kind.__qualname__} gave None")
    return made


def _is_factory(kind: type[Any], value: Any) -> bool:
    try:
        is_object = isinstance(value, kind)
    except TypeError:  # a protocol that cannot be asked
        is_object = not (inspect.isroutine(value) or inspect.isclass(value))
    return callable(value) and not is_object
