"""Every error that Derecho raises, in one tree.

    DerechoError
    ├── NonRetryable, RetryAfter            raised by activities to steer their retries
    ├── ActivityFailed                      what a workflow sees when the author's class cannot be rebuilt
    │   ├── ActivityTimeout
    │   └── ActivityCancelled
    ├── ProcessDied                         the child process of an activity died: one attempt has failed
    ├── CallbackClosed                      a token that completes nothing: wrong, used, or too late
    ├── WorkflowError                       about one run: has `workflow_id` and `run_id`
    │   ├── WorkflowFailed
    │   ├── WorkflowCancelled
    │   ├── WorkflowTerminated
    │   ├── WorkflowBlocked
    │   ├── WorkflowAlreadyRunning
    │   └── WorkflowNotFound
    ├── ChildWorkflowFailed                 (a WorkflowFailed) what a parent sees of a failed child
    ├── ChannelClosed                       send on a closed channel, receive on a drained one
    ├── NondeterminismError                 code and history disagree
    ├── DeterminismError                    workflow code did what only an activity may do
    ├── PayloadError                        a value does not fit its type or its limit
    ├── DefinitionError                     a workflow or activity is declared or registered wrongly
    └── StoreError                          the database refused
        └── StoreUnavailable                it may work later; `outcome` says what is known

A message says what happened, to which run, and what to do next. Data is in attributes, the cause is chained by `from`.
"""

from datetime import timedelta
from typing import Literal

TimeoutKind = Literal["schedule_to_start", "start_to_close", "schedule_to_close", "heartbeat"]


class DerechoError(Exception):
    """The root of all errors that Derecho raises on purpose."""


class NonRetryable(DerechoError):
    """Raise in an activity to stop retrying; the workflow sees the class of its cause, or this one without a cause."""


class RetryAfter(DerechoError):
    """Raise in an activity to be retried after `delay` (a timedelta, or seconds) instead of the policy's interval."""

    def __init__(self, delay: timedelta | float, message: str = "") -> None:
        self.delay = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
        super().__init__(message or f"retry after {self.delay.total_seconds():g} s")


class ActivityFailed(DerechoError):
    """An activity failed for good: the cause of the author's own exception; raised itself if its class is unknown."""

    def __init__(
        self, message: str, *, activity: str = "", attempts: int = 0, type_name: str = "", remote_traceback: str = ""
    ) -> None:
        super().__init__(message)
        self.activity = activity
        self.attempts = attempts
        self.type_name = type_name
        self.remote_traceback = remote_traceback


class ActivityTimeout(ActivityFailed):
    """An activity ran out of one of its four timeouts, named by `kind`."""

    def __init__(
        self,
        message: str,
        *,
        kind: TimeoutKind,
        activity: str = "",
        attempts: int = 0,
        type_name: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(
            message, activity=activity, attempts=attempts, type_name=type_name, remote_traceback=remote_traceback
        )
        self.kind = kind


class ActivityCancelled(ActivityFailed):
    """An activity ended because its cancellation was requested."""


class ProcessDied(DerechoError):
    """The child process of an activity died before its attempt had ended; the message says of what."""


class CallbackClosed(DerechoError):
    """A token completes nothing: it is wrong, it was used before, or its run no longer waits for it."""


class WorkflowError(DerechoError):
    """Something happened to one run; `workflow_id` and `run_id` say to which."""

    def __init__(self, message: str, *, workflow_id: str = "", run_id: str | None = None) -> None:
        super().__init__(message)
        self.workflow_id = workflow_id
        self.run_id = run_id


class WorkflowFailed(WorkflowError):
    """The workflow raised; `__cause__` is the author's own exception where its class is known here."""

    def __init__(
        self,
        message: str,
        *,
        workflow_id: str = "",
        run_id: str | None = None,
        type_name: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message, workflow_id=workflow_id, run_id=run_id)
        self.type_name = type_name
        self.remote_traceback = remote_traceback


class WorkflowCancelled(WorkflowError):
    """The workflow ended by cancellation."""

    def __init__(self, message: str, *, workflow_id: str = "", run_id: str | None = None, reason: str = "") -> None:
        super().__init__(message, workflow_id=workflow_id, run_id=run_id)
        self.reason = reason


class WorkflowTerminated(WorkflowError):
    """The run was closed at once by an operator or by its parent's close policy."""

    def __init__(self, message: str, *, workflow_id: str = "", run_id: str | None = None, reason: str = "") -> None:
        super().__init__(message, workflow_id=workflow_id, run_id=run_id)
        self.reason = reason


class WorkflowBlocked(WorkflowError):
    """The run cannot go on until code, a registration or data is mended; it is open and loses nothing."""

    def __init__(self, message: str, *, workflow_id: str = "", run_id: str | None = None, reason: str = "") -> None:
        super().__init__(message, workflow_id=workflow_id, run_id=run_id)
        self.reason = reason


class ChildWorkflowFailed(WorkflowFailed):
    """A child workflow failed; the author's own exception, where its class is known, has this as its cause."""


class WorkflowAlreadyRunning(WorkflowError):
    """The workflow id is taken by a run that the call may not replace."""


class WorkflowNotFound(WorkflowError):
    """No run of this workflow id that the call could be for."""


class ChannelClosed(DerechoError):
    """A send on a closed channel, or a receive on one that is closed and drained."""


class NondeterminismError(DerechoError):
    """The code asked for something else than history records: the message names both, with their source lines."""


class DeterminismError(DerechoError):
    """Workflow code tried I/O, a thread or the wall clock; the message names the line and the remedy."""


class PayloadError(DerechoError):
    """A value cannot be encoded or decoded as its declared type, or is larger than the limit."""


class DefinitionError(DerechoError):
    """A definition or registration is wrong; the message names the function, the parameter and the remedy."""


class StoreError(DerechoError):
    """The store refused for a reason that a retry does not mend: not a database, newer schema, wrong settings."""


class StoreUnavailable(StoreError):
    """The store could not serve the call now. `outcome` is "not_applied" or "unknown" (then read back, or repeat)."""

    def __init__(self, message: str, *, outcome: Literal["not_applied", "unknown"] = "not_applied") -> None:
        super().__init__(message)
        self.outcome = outcome
