"""What all events have in common."""

import re
from typing import Any, Literal, TypeAlias

import msgspec

ClosePolicy: TypeAlias = Literal["terminate", "cancel", "abandon"]
OnCancel: TypeAlias = Literal["request", "wait", "abandon"]


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag=snake):
    """The base of all events."""


class Command(Event, frozen=True, omit_defaults=True):
    """The base of what workflow code asks for. `source` is "file:line" of the asking code."""

    def identity(self) -> tuple[Any, ...]:
        """What must be the same on replay, beside the kind; payloads are not part of it."""
        return ()


def kind(event: Event) -> str:
    """The event's name as it stands in the journal, such as "activity_scheduled"."""
    return str(event.__struct_config__.tag)
