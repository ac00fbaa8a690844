"""Everything that can be recorded in a history, as one tagged union.

Events come in two kinds. *Facts* come from outside the workflow's code (an activity's result, a fired timer, a signal);
they wait in the inbox until a workflow task hands them to the run. *Commands* are what the code asks for during the
task. One history row holds one workflow task: its facts, a `WorkflowTaskCompleted`, its commands.

Event ids are positions: 1, 2, 3 … without gaps. An activity, timer, step or child is known by the id of the event that
scheduled it, so its identity needs no counter and is known before the commit. New fields need defaults; existing
ones never change their meaning, because histories are for ever.
"""

import re
from typing import Any, Literal, TypeAlias

import msgspec

from derecho.clock import SECOND
from derecho.errors import TimeoutKind
from derecho.journal.failures import Failure
from derecho.journal.payloads import Payload
from derecho.journal.policies import RetryRule

ClosePolicy: TypeAlias = Literal["terminate", "cancel", "abandon"]
OnCancel: TypeAlias = Literal["request", "wait", "abandon"]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Event(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag=_snake):
    """The base of all events."""


class Command(Event, frozen=True, omit_defaults=True):
    """The base of what workflow code asks for. `source` is "file:line" of the asking code."""

    def identity(self) -> tuple[Any, ...]:
        """What must be the same on replay, beside the kind; payloads are not part of it."""
        return ()


# --- facts ----------------------------------------------------------------------------------------------------------


class ParentLink(msgspec.Struct, frozen=True, omit_defaults=True):
    """The run that started this one as its child, and the event in its history that says so."""

    workflow_id: str
    run_id: str
    child: int


class WorkflowStarted(Event, frozen=True, omit_defaults=True):
    """Always event 1. `at` is when the start was acknowledged; `runtime` is the version of the durable contract."""

    workflow_type: str
    workflow_id: str
    run_id: str
    at: int
    input: list[Payload] = []
    version: int = 1
    runtime: int = 1
    python: str = ""
    first_run_id: str = ""
    continued_from: str | None = None
    attempt: int = 1
    parent: ParentLink | None = None
    actor: str = ""
    trace: dict[str, str] = {}
    last_failure: Failure | None = None


class SignalReceived(Event, frozen=True, omit_defaults=True):
    """A signal; `key` is the sender's dedupe key."""

    name: str
    payload: Payload
    at: int
    key: str | None = None
    sender: str = ""


class CancelRequested(Event, frozen=True, omit_defaults=True):
    """Someone asked this run to end; `limit` is how long it may take before it is closed by force."""

    reason: str
    at: int
    limit: int | None = None
    actor: str = ""


class ActivityCompleted(Event, frozen=True, omit_defaults=True):
    activity: int
    result: Payload
    at: int
    attempt: int = 1
    started_at: int = 0
    worker: str = ""


class ActivityFailed(Event, frozen=True, omit_defaults=True):
    activity: int
    failure: Failure
    at: int
    attempt: int = 1
    started_at: int = 0
    worker: str = ""


class ActivityTimedOut(Event, frozen=True, omit_defaults=True):
    activity: int
    kind: TimeoutKind
    failure: Failure
    at: int
    attempt: int = 1
    started_at: int = 0


class ActivityCancelled(Event, frozen=True, omit_defaults=True):
    activity: int
    failure: Failure
    at: int
    attempt: int = 1


class TimerFired(Event, frozen=True, omit_defaults=True):
    timer: int
    at: int


class StepCompleted(Event, frozen=True, omit_defaults=True):
    step: int
    result: Payload
    at: int
    attempt: int = 1


class StepFailed(Event, frozen=True, omit_defaults=True):
    step: int
    failure: Failure
    at: int
    attempt: int = 1


class ChildStarted(Event, frozen=True, omit_defaults=True):
    child: int
    run_id: str
    at: int


class ChildRefused(Event, frozen=True, omit_defaults=True):
    """The child's workflow id was taken by another run; nothing was started and nothing adopted."""

    child: int
    taken_by: str
    at: int


class ChildCompleted(Event, frozen=True, omit_defaults=True):
    child: int
    result: Payload
    at: int


class ChildFailed(Event, frozen=True, omit_defaults=True):
    child: int
    failure: Failure
    at: int


class ChildCancelled(Event, frozen=True, omit_defaults=True):
    child: int
    reason: str
    at: int


class ChildTerminated(Event, frozen=True, omit_defaults=True):
    child: int
    reason: str
    at: int


class SignalDelivered(Event, frozen=True, omit_defaults=True):
    """The outcome of a `SignalSent` of this run."""

    signal: int
    at: int


class SignalUndelivered(Event, frozen=True, omit_defaults=True):
    """There was no open run to take a `SignalSent` of this run."""

    signal: int
    reason: str
    at: int


# --- the boundary ---------------------------------------------------------------------------------------------------


class WorkflowTaskCompleted(Event, frozen=True, omit_defaults=True):
    """Facts stand before it, the commands that they led to behind it; `at` is the workflow's time during the task."""

    at: int
    worker: str = ""


# --- commands -------------------------------------------------------------------------------------------------------


class ActivityScheduled(Command, frozen=True, omit_defaults=True):
    """Durations in microseconds; `retry` is None when the engine had no policy at all (never retried)."""

    name: str
    input: list[Payload] = []
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
    value: Payload
    source: str = ""


class ChildScheduled(Command, frozen=True, omit_defaults=True):
    workflow_type: str
    workflow_id: str
    run_id: str
    input: list[Payload] = []
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
    child: int
    reason: str = ""
    source: str = ""

    def identity(self) -> tuple[Any, ...]:
        return (self.child,)


class SignalSent(Command, frozen=True, omit_defaults=True):
    """A signal to another workflow id (or, for a child's own handle, to that run)."""

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
    input: list[Payload] = []
    version: int = 1
    queue: str = "default"

    def identity(self) -> tuple[Any, ...]:
        return (self.workflow_type,)


class WorkflowTerminated(Event, frozen=True, omit_defaults=True):
    """Terminal, and the only event of its row: it comes from outside and no code ran."""

    reason: str
    at: int
    actor: str = ""


Fact: TypeAlias = (
    WorkflowStarted
    | SignalReceived
    | CancelRequested
    | ActivityCompleted
    | ActivityFailed
    | ActivityTimedOut
    | ActivityCancelled
    | TimerFired
    | StepCompleted
    | StepFailed
    | ChildStarted
    | ChildRefused
    | ChildCompleted
    | ChildFailed
    | ChildCancelled
    | ChildTerminated
    | SignalDelivered
    | SignalUndelivered
)
Terminal: TypeAlias = (
    WorkflowCompleted | WorkflowFailed | WorkflowCancelled | WorkflowContinuedAsNew | WorkflowTerminated
)
CommandEvent: TypeAlias = (
    ActivityScheduled
    | ActivityCancelRequested
    | TimerScheduled
    | TimerCancelled
    | StepScheduled
    | SideEffectRecorded
    | ChildScheduled
    | ChildCancelRequested
    | SignalSent
    | PatchMarked
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
    | WorkflowContinuedAsNew
)
AnyEvent: TypeAlias = Fact | WorkflowTaskCompleted | CommandEvent | WorkflowTerminated

TERMINAL: tuple[type[Event], ...] = (
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowCancelled,
    WorkflowContinuedAsNew,
    WorkflowTerminated,
)


def kind(event: Event) -> str:
    """The event's name as it stands in the journal, such as "activity_scheduled"."""
    return str(event.__struct_config__.tag)


def duration_class(duration: int) -> str:
    """The order of magnitude of a timer. A retuned delay replays, another timer in its place does not."""
    for name, least in (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1)):
        if duration >= least * SECOND:
            return name
    return "moment" if duration > 0 else "none"
