"""What workflow code awaits: futures of activities, steps, timers, children and sent signals.

Each knows the event id of its command. The execution resolves it with the fact that carries the same id; cancelling it
asks, by another command, for the end of what it stands for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from derecho.journal.events import ActivityCancelRequested, ChildCancelRequested, ChildScheduled, OnCancel
from derecho.journal.payloads import Converter, Payload
from derecho.runtime.loop import Future, LoopHandle
from derecho.runtime.source import caller

if TYPE_CHECKING:
    from derecho.runtime.execution import Execution

T = TypeVar("T")

Decode = Callable[[Payload, Converter], Any]
Send = Callable[[str, Any, Any, str], Awaitable[None]]


class PendingFuture(Future[T]):
    """A future that a fact of the run's history resolves; `event_id` is its command's."""

    __slots__ = ("event_id", "execution")

    def __init__(self, execution: "Execution", event_id: int) -> None:
        super().__init__(loop=execution.loop)
        self.execution = execution
        self.event_id = event_id


class ResultFuture(PendingFuture[T]):
    """A future with a recorded, typed result."""

    __slots__ = ("decode", "name")

    def __init__(self, execution: "Execution", event_id: int, name: str, decode: Decode) -> None:
        super().__init__(execution, event_id)
        self.name = name
        self.decode = decode


class ActivityFuture(ResultFuture[T]):
    """An activity under way. With `on_cancel="wait"` a cancelled one ends when the activity has ended."""

    __slots__ = ("cancel_asked", "on_cancel")

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

    __slots__ = ()

    def cancel(self, msg: Any = None) -> bool:
        if not self.done() and not self.execution.closing:
            self.execution.pending.pop(self.event_id, None)
            self.execution.steps.pop(self.event_id, None)
        return super().cancel(msg)


class ChildHandle(ResultFuture[T]):
    """A child workflow under way: a future of its result. Cancelling it asks the child to end, by its `on_cancel`."""

    __slots__ = ("_run_id", "_send", "_start_state", "cancel_asked", "id", "scheduled")

    def __init__(
        self, execution: "Execution", event_id: int, scheduled: ChildScheduled, decode: Decode, send: "Send"
    ) -> None:
        super().__init__(execution, event_id, scheduled.workflow_type, decode)
        self.id = scheduled.workflow_id
        self.scheduled = scheduled
        self.cancel_asked = False
        self._send = send
        self._run_id: Future[str] | None = None
        self._start_state: str | Exception | None = None

    async def started(self) -> str:
        """The child's run id, once its start is committed. Raises WorkflowAlreadyRunning when its id was taken."""
        if self._run_id is None:
            self._run_id = Future(loop=self.execution.loop)
            if self._start_state is not None:
                self.settle(self._start_state)
        return await asyncio.shield(self._run_id)

    async def signal(self, signal: Any, value: Any) -> None:
        """Send the child a signal; raises WorkflowNotFound when it has no open run any more."""
        await self._send(self.id, signal, value, self.scheduled.run_id)

    def settle(self, state: str | Exception) -> None:
        """The start is known: a run id, or why there is none."""
        self._start_state = state
        if self._run_id is None or self._run_id.done():
            return
        if isinstance(state, str):
            self._run_id.set_result(state)
        else:
            self._run_id.set_exception(state)
            self._run_id._log_traceback = False

    def cancel(self, msg: Any = None) -> bool:
        if self.done() or self.execution.closing:
            return super().cancel(msg)
        on_cancel = self.scheduled.on_cancel
        if on_cancel != "abandon" and not self.cancel_asked:
            self.cancel_asked = True
            request = ChildCancelRequested(self.event_id, self.id, str(msg or ""), caller(2), self.scheduled.run_id)
            self.execution.command(request)
        return True if on_cancel == "wait" else super().cancel(msg)

    def finish_cancel(self) -> None:
        """The child that was asked to end has ended."""
        super().cancel()


class Timer(PendingFuture[datetime]):
    """A durable timer; its result is the instant at which it was due. `cancel()` removes it from the store."""

    __slots__ = ()

    def cancel(self, msg: Any = None) -> bool:
        if not self.done() and self.event_id and not self.execution.closing:
            self.execution.drop_timer(self.event_id)
        return super().cancel(msg)


class CancelDeadline:
    """The instant at which a run whose cancellation was requested is closed by force."""

    __slots__ = ()


class CallbackTimer:
    """The durable timer behind a `loop.call_later` of asyncio itself (`asyncio.sleep`, `timeout`, `wait`)."""

    __slots__ = ("handle",)

    def __init__(self, handle: LoopHandle) -> None:
        self.handle = handle
