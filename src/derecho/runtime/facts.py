"""What each fact does to a run: which future it resolves, which fiber it wakes.

The order is part of the durable contract: facts in the order of the activation, futures resolved at once, fibers woken
first in, first out.
"""

from typing import TYPE_CHECKING, Any, assert_never

from derecho.clock import to_datetime
from derecho.errors import (
    ChildWorkflowFailed,
    WorkflowAlreadyRunning,
    WorkflowCancelled,
    WorkflowNotFound,
    WorkflowTerminated,
)
from derecho.journal import events as ev
from derecho.journal.failures import activity_error, rebuild_with, short_type
from derecho.journal.payloads import Payload
from derecho.runtime.handles import (
    ActivityFuture,
    CallbackTimer,
    CancelDeadline,
    ChildHandle,
    PendingFuture,
    ResultFuture,
    Timer,
)

if TYPE_CHECKING:
    from derecho.runtime.execution import Execution


def apply(execution: "Execution", fact: ev.Fact, event_id: int) -> None:
    """Hand one fact to a run; `event_id` is its place in the history."""
    match fact:
        case ev.ActivityCompleted():
            _resolve(execution, fact.activity, fact.result)
        case ev.ActivityFailed() | ev.ActivityTimedOut() | ev.ActivityCancelled():
            _fail(execution, fact.activity, fact)
        case ev.TimerFired():
            _fire(execution, fact)
        case ev.StepCompleted():
            _resolve(execution, fact.step, fact.result)
        case ev.StepFailed():
            _fail(execution, fact.step, fact)
        case ev.SignalReceived():
            execution.receive_signal(fact)
        case ev.CancelRequested():
            execution.request_cancel(fact, event_id)
        case ev.WorkflowStarted():
            execution.start(fact)
        case ev.ChildStarted():
            child = execution.pending.get(fact.child)
            if isinstance(child, ChildHandle):
                child.settle(fact.run_id)
        case ev.ChildCompleted():
            _resolve(execution, fact.child, fact.result)
        case ev.ChildRefused() | ev.ChildFailed() | ev.ChildCancelled() | ev.ChildTerminated():
            _child_ended(execution, fact)
        case ev.SignalDelivered():
            future = execution.pending.pop(fact.signal, None)
            if isinstance(future, PendingFuture) and not future.done():
                future.set_result(None)
        case ev.SignalUndelivered():
            _refuse(execution.pending.pop(fact.signal, None), WorkflowNotFound(fact.reason))
        case _:
            assert_never(fact)


def _resolve(execution: "Execution", event_id: int, payload: Payload) -> None:
    future = execution.pending.pop(event_id, None)
    execution.steps.pop(event_id, None)
    if not isinstance(future, ResultFuture) or future.done():
        return
    if isinstance(future, (ActivityFuture, ChildHandle)) and future.cancel_asked:
        future.finish_cancel()
        return
    future.set_result(future.decode(payload, execution.converter))


def _fail(
    execution: "Execution",
    event_id: int,
    fact: ev.ActivityFailed | ev.ActivityTimedOut | ev.ActivityCancelled | ev.StepFailed,
) -> None:
    future = execution.pending.pop(event_id, None)
    execution.steps.pop(event_id, None)
    if isinstance(future, ActivityFuture) and future.cancel_asked and not future.done():
        future.finish_cancel()
    elif isinstance(future, ResultFuture):
        _refuse(future, activity_error(fact.failure, future.name, fact.attempt))


def _child_ended(
    execution: "Execution", fact: ev.ChildRefused | ev.ChildFailed | ev.ChildCancelled | ev.ChildTerminated
) -> None:
    child = execution.pending.pop(fact.child, None)
    if not isinstance(child, ChildHandle):
        return
    where: dict[str, Any] = {"workflow_id": child.id, "run_id": child.scheduled.run_id}
    match fact:
        case ev.ChildRefused():
            where["run_id"] = None
            error: Exception = WorkflowAlreadyRunning(
                f"child workflow {child.id!r} was not started: its id is taken by another open run", **where
            )
            child.settle(error)
        case ev.ChildFailed():
            failure = fact.failure
            error = rebuild_with(
                failure,
                ChildWorkflowFailed(
                    f"child workflow {child.id!r} failed: {short_type(failure.type)}: {failure.message}",
                    type_name=failure.type,
                    remote_traceback=failure.traceback,
                    **where,
                ),
            )
        case ev.ChildCancelled():
            error = WorkflowCancelled(f"child workflow {child.id!r} was cancelled", reason=fact.reason, **where)
        case ev.ChildTerminated():
            error = WorkflowTerminated(f"child workflow {child.id!r} was terminated", reason=fact.reason, **where)
        case _:
            assert_never(fact)
    if child.cancel_asked and not child.done():
        child.finish_cancel()
    else:
        _refuse(child, error)


def _refuse(future: object, error: Exception) -> None:
    if isinstance(future, PendingFuture) and not future.done():
        future.set_exception(error)
        future._log_traceback = False  # a failure that nobody awaits is not asyncio's to complain of


def _fire(execution: "Execution", fact: ev.TimerFired) -> None:
    waiting = execution.pending.pop(fact.timer, None)
    if isinstance(waiting, CallbackTimer):
        waiting.handle.timer = None
        execution.loop.call_soon(execution.loop.run_handle, waiting.handle)
    elif isinstance(waiting, CancelDeadline):
        execution.forced = True
    elif isinstance(waiting, Timer) and not waiting.done():
        waiting.set_result(to_datetime(fact.at))
