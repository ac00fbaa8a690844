"""What the code of an activity can ask about the attempt that it is.

`current_activity()` gives the context on the loop, in a thread and in a process alike; `heartbeat()` is its shortcut.
"""

import contextvars
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from derecho.clock import to_datetime
from derecho.errors import DerechoError
from derecho.journal.model import ActivityRow
from derecho.journal.payloads import Converter, Payload

if TYPE_CHECKING:
    from derecho.client import Client

T = TypeVar("T")

CancelReason = Literal["requested", "timeout", "shutdown", "lost"]


class ActivityContext:
    """One attempt: who it is, what it may use, how it reports progress, and whether it is still wanted."""

    def __init__(
        self,
        row: ActivityRow,
        *,
        converter: Converter,
        beat: Callable[[], None],
        resources: Mapping[type[Any], Any] | None = None,
        progress: Payload | None = None,
        client: "Client | None" = None,
    ) -> None:
        self.workflow_id = row.workflow_id
        self.run_id = row.run_id
        self.name = row.name
        self.attempt = row.attempt
        self.cancel_reason: CancelReason | None = None
        self._progress = progress  # the newest that is known
        self._row = row
        self._converter = converter
        self._beat = beat
        self._resources = resources
        self._client = client
        self._transaction: Any = None

    @cached_property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """Adds the run, the activity and the attempt to every record."""
        names = {
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "workflow_type": self._row.workflow_type,
            "activity": self.name,
            "attempt": self.attempt,
        }
        return logging.LoggerAdapter(logging.getLogger("derecho.activity"), names)

    @property
    def scheduled_at(self) -> datetime:
        """When the workflow asked for this activity; the same for all attempts."""
        return to_datetime(self._row.scheduled_at)

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts and unique across runs: hand it to the outside system that must not act twice."""
        return f"{self.run_id}:{self._row.activity}"

    @property
    def client(self) -> "Client":
        """The client of the engine that runs this attempt; its methods are for the engine's event loop."""
        if self._client is None:
            raise DerechoError(f"activity {self.name!r} has no client here: {_ELSEWHERE}")
        return self._client

    @property
    def transaction(self) -> Any:
        """The connection whose transaction also records this attempt's outcome: `@activity(transactional=True)`."""
        if self._transaction is None:
            raise DerechoError(f"activity {self.name!r} is not transactional: declare it with transactional=True")
        return self._transaction

    def resource(self, type: type[T]) -> T:
        """The object that the engine has for this type in `resources=`; raises DerechoError without one."""
        if self._resources is None:
            raise DerechoError(f"activity {self.name!r} asked for a {type.__qualname__}: {_ELSEWHERE}")
        try:
            return cast(T, self._resources[type])
        except KeyError:
            known = ", ".join(sorted(cls.__qualname__ for cls in self._resources)) or "none"
            raise DerechoError(
                f"activity {self.name!r} asked for a resource of type {type.__qualname__}, and this engine has: "
                f"{known}. Pass Engine(resources={{{type.__qualname__}: …}})"
            ) from None

    def heartbeat(self, progress: Any = None) -> None:
        """Say that this attempt lives, and keep `progress` for the next one; without it the last one is kept.

        Cheap enough for an inner loop: only the newest is written, at most twice per heartbeat timeout. Works in
        `async def`, in threads and in processes. Raises PayloadError for progress that cannot be encoded.
        """
        if progress is not None:
            self._progress = self._converter.encode(progress, f"the heartbeat of activity {self.name!r}")
        self._beat()

    def last_heartbeat(self, type: type[T]) -> T | None:
        """The newest progress that this activity reported, in this attempt or one before; None when it never did."""
        if self._progress is None:
            return None
        return cast(T, self._converter.decode(self._progress, type, f"the last heartbeat of activity {self.name!r}"))

    def cancelled(self) -> bool:
        """Whether this attempt should end; `cancel_reason` says why."""
        return self.cancel_reason is not None


_ELSEWHERE = "it runs in a process of its own, which shares nothing with the engine. Open what it needs there"

_current: contextvars.ContextVar[ActivityContext] = contextvars.ContextVar("derecho_activity")


def current_activity() -> ActivityContext:
    """The attempt that this code runs in; raises DerechoError outside an activity."""
    try:
        return _current.get()
    except LookupError:
        raise DerechoError("current_activity() was called outside an activity") from None


def heartbeat(progress: Any = None) -> None:
    """`current_activity().heartbeat(progress)`: this attempt lives, and has come this far."""
    current_activity().heartbeat(progress)
