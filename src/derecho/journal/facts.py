"""Events that come from outside a workflow's code, and the boundary behind which its commands stand."""

import msgspec

from derecho.errors import TimeoutKind
from derecho.journal.base import Event
from derecho.journal.failures import Failure
from derecho.journal.payloads import Payload


class ParentLink(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
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
    input: tuple[Payload, ...] = ()
    version: int = 1
    runtime: int = 1
    python: str = ""
    first_run_id: str = ""
    continued_from: str | None = None
    attempt: int = 1
    parent: ParentLink | None = None
    actor: str = ""
    trace: dict[str, str] = msgspec.field(default_factory=dict)
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


class WorkflowTerminated(Event, frozen=True, omit_defaults=True):
    """Terminal, and the only event of its row: it comes from outside and no code ran."""

    reason: str
    at: int
    actor: str = ""
