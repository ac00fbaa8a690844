"""Commands into changes: what one workflow task writes, in one commit.

Pure: the same facts and commands give the same row, whoever decides and whenever.
"""

from collections.abc import Sequence

import msgspec

from derecho.journal import events as ev
from derecho.journal.changes import (
    Advance,
    CancelActivity,
    Change,
    DropTimer,
    NewMessage,
    ScheduleTimer,
)
from derecho.journal.deadlines import close_at, waiting_until
from derecho.journal.failures import cancelled_failure
from derecho.journal.model import ActivityRow, Head, RunRow, Status, TimerRow
from derecho.journal.wire import HistoryRow, chain, encode_events, encode_struct


class Decision(msgspec.Struct, frozen=True):
    """What a workflow task leads to: `advance` and the changes that go with it, in one transition."""

    advance: Advance
    head: Head
    changes: list[Change]
    activities: list[tuple[ActivityRow, ev.ActivityScheduled]]
    outcome: ev.CommandEvent | None


class RunIdentity(msgspec.Struct, frozen=True):
    workflow_id: str
    run_id: str
    workflow_type: str


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
) -> Decision:
    """Turn one workflow task into a transition.

    Args:
        seen: where the history stands. consume_to: the last message that is among `facts`.
        inbox_seen: the last message known; closing conflicts when there is a newer one (None: closes all the same).
        keep_claim: the run goes on at once in this worker (steps, facts that came meanwhile).
    """
    boundary = ev.WorkflowTaskCompleted(at, worker)
    events: list[ev.AnyEvent] = [*facts, boundary, *commands]
    row = history_row(seen, events, at)
    first = seen.events + len(facts) + 2
    changes: list[Change] = []
    activities: list[tuple[ActivityRow, ev.ActivityScheduled]] = []
    status: Status = "cancelling" if cancelling else "running"
    outcome: ev.CommandEvent | None = None
    for event_id, command in enumerate(commands, first):
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
            case ev.WorkflowCompleted() | ev.WorkflowFailed() | ev.WorkflowCancelled() | ev.WorkflowContinuedAsNew():
                outcome, status = command, closing_status(command)
            case (
                ev.StepScheduled()
                | ev.SideEffectRecorded()
                | ev.PatchMarked()
                | ev.ChildScheduled()
                | ev.ChildCancelRequested()
                | ev.SignalSent()
            ):
                pass
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
    )
    return Decision(advance, head, [] if outcome else changes, [] if outcome else activities, outcome)


def termination(row: RunRow, event: ev.WorkflowTerminated, claim: str | None) -> Advance:
    """Close a run from outside, wherever its code is."""
    history = history_row(row.head, [event], event.at)
    return Advance(
        row.run_id, row.head, history, row.events + 1, "terminated", claim=claim, outcome=encode_struct(event)
    )


def history_row(seen: Head, events: Sequence[ev.AnyEvent], at: int) -> HistoryRow:
    task, data = seen.tasks + 1, encode_events(events)
    return HistoryRow(task, seen.events + 1, at, data, chain(seen.digest, task, at, data))


def activity_row(run: RunIdentity, event_id: int, command: ev.ActivityScheduled, at: int) -> ActivityRow:
    return ActivityRow(
        run.run_id,
        event_id,
        run.workflow_id,
        run.workflow_type,
        command.name,
        command.queue,
        encode_struct(command),
        scheduled_at=at,
        due_at=at,
        timeout_at=waiting_until(command, at, 1),
        close_at=close_at(command, at),
    )


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


def _drop_timer(run_id: str, timer: int, changes: list[Change]) -> None:
    """A timer scheduled and cancelled in one task never reaches the store."""
    for index, change in enumerate(changes):
        if isinstance(change, ScheduleTimer) and change.row.timer == timer:
            del changes[index]
            return
    changes.append(DropTimer(run_id, timer))
