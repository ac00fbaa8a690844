"""Calls as values: which definition, which arguments."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from derecho.errors import DefinitionError, PayloadError

if TYPE_CHECKING:
    from derecho.journal.signatures import Signature
    from derecho.queues import Queue

R_co = TypeVar("R_co", covariant=True)

MAX_NAME = 255
"""Bytes in UTF-8 of a name or id."""


class Definition:
    """What workflows and activities have in common. A reference has the signature only, its code is elsewhere."""

    kind: Literal["workflow", "activity"]
    name: str
    fn: Callable[..., Any]
    signature: "Signature"
    queue: "Queue | None"
    version: int = 1
    is_reference: bool

    @property
    def queue_name(self) -> str:
        return "default" if self.queue is None else self.queue.name


class Invocation(Generic[R_co]):
    """A typed call that has not happened yet: for start, execute, child, map, continue-as-new and compensation."""

    __slots__ = ("definition", "values")

    def __init__(self, definition: Definition, values: list[Any]) -> None:
        self.definition = definition
        self.values = values

    @property
    def name(self) -> str:
        """The registered name of what is called."""
        return self.definition.name

    def __repr__(self) -> str:
        return f"<call of {self.definition!r}>"


def check_name(name: str, what: str) -> str:
    """A name or id that every store keeps as it is; raises DefinitionError for one that some would not."""
    reason = bad_name(name)
    if reason is not None:
        raise DefinitionError(f"{what} name {name!r} {reason}")
    return name


def bad_name(name: object) -> str | None:
    """Why a string cannot be a name or id; None when it can."""
    if not isinstance(name, str):
        return f"is a {type(name).__name__}, not a string"
    if not name:
        return "is empty"
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        return "has control characters"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "has a lone surrogate, which no database keeps"
    return f"has {size} bytes, more than {MAX_NAME}" if size > MAX_NAME else None


def check_text(text: object, what: str) -> None:
    """Raises PayloadError unless it can stand in a history for people to read."""
    if not isinstance(text, str):
        raise PayloadError(f"{what} is text, not {text!r}")


def check_choice(choice: object, choices: tuple[str, ...], what: str) -> None:
    """Raises PayloadError unless it is one of `choices`."""
    if choice not in choices:
        raise PayloadError(f"{what} is one of {', '.join(map(repr, choices))}, not {choice!r}")
