"""Events that a workflow's code asks for during a workflow task."""

from typing import Any

from derecho.clock import SECOND
from derecho.journal.base import ClosePolicy, Command, OnCancel
from derecho.journal.failures import Failure
from derecho.journal.payloads import Payload
from derecho.journal.policies import RetryRule


class ActivityScheduled(Command, frozen=True, omit_defaults=True):
    """Durations in microseconds; `retry` is None when the engine had no policy at all (never retried)."""

    name: str
    input: tuple[Payload, ...] = ()
    queue: str = "default"
    retry: RetryRule | None = None
    start_to_close: int | None = None
    schedule_to_close: int | None = None
    schedule_to_start: int | None = None
    heartbeat: int | None = None
    on_cancel: OnCancel = "request"
    source: str = ""
    summary: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.name,)


class ActivityCancelRequested(Command, frozen=True, omit_defaults=True):
    activity: int
    source: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.activity,)


class TimerScheduled(Command, frozen=True, omit_defaults=True):
    """`duration` as asked for; `fire_at` the instant it led to."""

    duration: int
    fire_at: int
    source: str = ""
    summary: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (duration_class(self.duration),)


class TimerCancelled(Command, frozen=True, omit_defaults=True):
    timer: int
    source: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.timer,)


class StepScheduled(Command, frozen=True, omit_defaults=True):
    name: str
    source: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.name,)


class SideEffectRecorded(Command, frozen=True, omit_defaults=True):
    """`failure` is what the function raised instead of giving a value."""

    value: Payload
    source: str = ""
    failure: Failure | None = None


class ChildScheduled(Command, frozen=True, omit_defaults=True):
    workflow_type: str
    workflow_id: str
    run_id: str
    input: tuple[Payload, ...] = ()
    version: int = 1
    queue: str = "default"
    close_policy: ClosePolicy = "terminate"
    on_cancel: OnCancel = "request"
    retry: RetryRule | None = None
    timeout: int | None = None
    source: str = ""
    summary: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.workflow_type, self.workflow_id)


class ChildCancelRequested(Command, frozen=True, omit_defaults=True):
    """`run_id` is the child's first run: a stranger that has its workflow id now is not meant."""

    child: int
    workflow_id: str
    reason: str = ""
    source: str = ""
    run_id: str | None = None

    def identity(self) -> tuple[Any, ...]:
        return (self.child,)


class SignalSent(Command, frozen=True, omit_defaults=True):
    """A signal to another workflow id; from a child's own handle, to the chain that began with `run_id`."""

    workflow_id: str
    name: str
    payload: Payload
    run_id: str | None = None
    source: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.workflow_id, self.name)


class PatchMarked(Command, frozen=True, omit_defaults=True):
    change: str
    source: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.change,)


class WorkflowCompleted(Command, frozen=True, omit_defaults=True):
    """Terminal. `unread` counts the signals that nobody received."""

    result: Payload
    unread: int = 0


class WorkflowFailed(Command, frozen=True, omit_defaults=True):
    failure: Failure
    unread: int = 0


class WorkflowCancelled(Command, frozen=True, omit_defaults=True):
    reason: str
    unread: int = 0
    fibers_left: int = 0


class WorkflowContinuedAsNew(Command, frozen=True, omit_defaults=True):
    run_id: str
    workflow_type: str
    input: tuple[Payload, ...] = ()
    version: int = 1
    queue: str = "default"

    def identity(self) -> tuple[Any, ...]:
        return (self.workflow_type,)


def duration_class(duration: int) -> str:
    """The order of magnitude of a timer. A retuned delay replays, another timer in its place does not."""
    for name, least in (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1)):
        if duration >= least * SECOND:
            return name
    return "moment" if duration > 0 else "none"
