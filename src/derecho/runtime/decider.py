"""Commands into changes: what one workflow task writes, in one commit.

Pure: the same facts and commands give the same row, whoever decides and whenever.
"""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from derecho.journal import events as ev
from derecho.journal.changes import Advance, CancelActivity, Change, DropTimer, NewMessage, ScheduleTimer
from derecho.journal.failures import cancelled_failure
from derecho.journal.model import ActivityRow, Head, Status, TimerRow
from derecho.journal.wire import encode_struct
from derecho.runtime.ending import leave_behind
from derecho.runtime.rows import RunIdentity, activity_row, create_child, deliver_signal, deliver_to_child, history_row


class Decision(msgspec.Struct, frozen=True):
    """What a workflow task leads to: `advance` and the changes that go with it, in one transition."""

    advance: Advance
    head: Head
    changes: list[Change]
    activities: list[tuple[ActivityRow, ev.ActivityScheduled]]
    outcome: ev.CommandEvent | None


def decide(
    run: RunIdentity,
    seen: Head,
    facts: Sequence[ev.Fact],
    commands: Sequence[ev.CommandEvent],
    *,
    at: int,
    worker: str,
    claim: str | None,
    keep_claim: bool,
    consume_to: int | None,
    inbox_seen: int | None,
    cancelling: bool,
    children: Sequence[ev.ChildScheduled] = (),
) -> Decision:
    """Turn one workflow task into a transition.

    Args:
        seen: where the history stands. consume_to: the last message that is among `facts`.
        inbox_seen: the last message known; closing conflicts when there is a newer one (None: closes all the same).
        keep_claim: the run goes on at once in this worker (steps, facts that came meanwhile).
        children: the children that were open before this task and still are.
    """
    events: list[ev.AnyEvent] = [*facts, ev.WorkflowTaskCompleted(at, worker), *commands]
    row = history_row(seen, events, at)
    outcome = commands[-1] if commands and isinstance(commands[-1], ev.TERMINAL) else None
    status: Status = "cancelling" if cancelling else "running"
    if outcome is not None:
        status = closing_status(outcome)
    head = Head(row.task, seen.events + len(events), row.digest)
    advance = Advance(
        run.run_id,
        seen,
        row,
        head.events,
        status,
        claim=claim,
        keep_claim=keep_claim and outcome is None,
        consume_to=consume_to,
        inbox_seen=None if outcome is None else inbox_seen,
        outcome=None if outcome is None else encode_struct(outcome),
        continues=status == "continued_as_new",
    )
    first = seen.events + len(facts) + 2
    changes: list[Change] = []
    activities: list[tuple[ActivityRow, ev.ActivityScheduled]] = []
    if outcome is None:
        if cancelling:
            _start_cancel_deadline(run.run_id, seen, facts, changes)
        for event_id, command in enumerate(commands, first):
            _ask(run, event_id, command, at, changes, activities)
    else:
        changes = leave_behind(run, first, commands, outcome, children, at)
    return Decision(advance, head, changes, activities, outcome)


def _ask(
    run: RunIdentity,
    event_id: int,
    command: ev.CommandEvent,
    at: int,
    changes: list[Change],
    activities: list[tuple[ActivityRow, ev.ActivityScheduled]],
) -> None:
    """The changes of one command of a run that goes on."""
    match command:
        case ev.ActivityScheduled():
            activities.append((activity_row(run, event_id, command, at), command))
        case ev.TimerScheduled():
            changes.append(ScheduleTimer(TimerRow(run.run_id, event_id, command.fire_at)))
        case ev.TimerCancelled():
            _drop_timer(run.run_id, command.timer, changes)
        case ev.ActivityCancelRequested():
            fact = ev.ActivityCancelled(
                command.activity, cancelled_failure("cancelled before an attempt began"), at, attempt=0
            )
            changes.append(CancelActivity(run.run_id, command.activity, NewMessage(encode_struct(fact))))
        case ev.ChildScheduled():
            changes.append(create_child(run, event_id, command, at, told=True))
        case ev.ChildCancelRequested():
            request = ev.CancelRequested(command.reason or "its parent asked for it", at, actor=run.workflow_id)
            changes.append(deliver_to_child(command.workflow_id, command.run_id, request))
        case ev.SignalSent():
            changes.append(deliver_signal(run, event_id, command, at, told=True))
        case ev.StepScheduled() | ev.SideEffectRecorded() | ev.PatchMarked():
            pass
        case ev.WorkflowCompleted() | ev.WorkflowFailed() | ev.WorkflowCancelled() | ev.WorkflowContinuedAsNew():
            pass  # always the last command; see `runtime.ending`
        case _:
            assert_never(command)


def closing_status(command: ev.CommandEvent) -> Status:
    match command:
        case ev.WorkflowCompleted():
            return "completed"
        case ev.WorkflowCancelled():
            return "cancelled"
        case ev.WorkflowContinuedAsNew():
            return "continued_as_new"
        case _:
            return "failed"


def _start_cancel_deadline(run_id: str, seen: Head, facts: Sequence[ev.Fact], changes: list[Change]) -> None:
    """A request to cancel that has a limit gets a timer, known by the id of the request's own event."""
    for event_id, fact in enumerate(facts, seen.events + 1):
        if isinstance(fact, ev.CancelRequested) and fact.limit is not None:
            changes.append(ScheduleTimer(TimerRow(run_id, event_id, fact.at + fact.limit)))


def _drop_timer(run_id: str, timer: int, changes: list[Change]) -> None:
    """A timer scheduled and cancelled in one task never reaches the store."""
    for index, change in enumerate(changes):
        if isinstance(change, ScheduleTimer) and change.row.timer == timer:
            del changes[index]
            return
    changes.append(DropTimer(run_id, timer))
