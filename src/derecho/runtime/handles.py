"""What workflow code awaits: futures of activities, steps, timers, children and sent signals.

Each knows the event id of its command. The execution resolves it with the fact that carries the same id; cancelling it
asks, by another command, for the end of what it stands for.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from derecho.journal.events import ActivityCancelRequested, OnCancel
from derecho.journal.payloads import Payload
from derecho.runtime.loop import Future, LoopHandle
from derecho.runtime.source import caller

if TYPE_CHECKING:
    from derecho.runtime.execution import Execution

T = TypeVar("T")

Decode = Callable[[Payload], Any]


class PendingFuture(Future[T]):
    """A future that a fact of the run's history resolves; `event_id` is its command's."""

    def __init__(self, execution: "Execution", event_id: int) -> None:
        super().__init__(loop=execution.loop)
        self.execution = execution
        self.event_id = event_id


class ResultFuture(PendingFuture[T]):
    """A future with a recorded, typed result."""

    def __init__(self, execution: "Execution", event_id: int, name: str, decode: Decode) -> None:
        super().__init__(execution, event_id)
        self.name = name
        self.decode = decode


class ActivityFuture(ResultFuture[T]):
    """An activity under way. With `on_cancel="wait"` a cancelled one ends when the activity has ended."""

    def __init__(self, execution: "Execution", event_id: int, name: str, decode: Decode, on_cancel: OnCancel) -> None:
        super().__init__(execution, event_id, name, decode)
        self.on_cancel = on_cancel
        self.cancel_asked = False

    def cancel(self, msg: Any = None) -> bool:
        if self.done() or self.execution.closing:
            return super().cancel(msg)
        if self.on_cancel != "abandon" and not self.cancel_asked:
            self.cancel_asked = True
            self.execution.command(ActivityCancelRequested(self.event_id, source=caller(2)))
        return True if self.on_cancel == "wait" else super().cancel(msg)

    def finish_cancel(self) -> None:
        """The activity that was asked to end has ended."""
        super().cancel()


class StepFuture(ResultFuture[T]):
    """A step under way; cancelling it stops waiting, and the worker stops its code. It leaves no event of its own."""

    def cancel(self, msg: Any = None) -> bool:
        if not self.done() and not self.execution.closing:
            self.execution.pending.pop(self.event_id, None)
            self.execution.steps.pop(self.event_id, None)
        return super().cancel(msg)


class Timer(PendingFuture[datetime]):
    """A durable timer; its result is the instant at which it was due. `cancel()` removes it from the store."""

    def cancel(self, msg: Any = None) -> bool:
        if not self.done() and self.event_id and not self.execution.closing:
            self.execution.drop_timer(self.event_id)
        return super().cancel(msg)


class CallbackTimer:
    """The durable timer behind a `loop.call_later` of asyncio itself (`asyncio.sleep`, `timeout`, `wait`)."""

    __slots__ = ("handle",)

    def __init__(self, handle: LoopHandle) -> None:
        self.handle = handle
