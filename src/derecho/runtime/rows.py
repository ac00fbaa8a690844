"""Rows and messages that a workflow task writes: history, activities, children, signals."""

from collections.abc import Sequence

import msgspec

from derecho.journal import events as ev
from derecho.journal.changes import CreateRun, Deliver, NewMessage
from derecho.journal.deadlines import close_at, waiting_until
from derecho.journal.model import ActivityRow, Head, RunRow
from derecho.journal.wire import HistoryRow, chain, encode_events, encode_struct
from derecho.runtime.loop import RUNTIME_VERSION


class RunIdentity(msgspec.Struct, frozen=True, gc=False):
    """What never changes about a run. `parent` is the run id of the parent and the event that scheduled this child."""

    workflow_id: str
    run_id: str
    workflow_type: str
    chain_id: str
    parent: tuple[str, int] | None = None

    @classmethod
    def of(cls, row: RunRow) -> "RunIdentity":
        parent = None
        if row.parent_run_id is not None and row.parent_child is not None:
            parent = (row.parent_run_id, row.parent_child)
        return cls(row.workflow_id, row.run_id, row.workflow_type, row.chain_id, parent)


def create_child(run: RunIdentity, event_id: int, command: ev.ChildScheduled, at: int, *, told: bool) -> CreateRun:
    """Open a child in its parent's commit. `told`: the parent learns whether it was opened or refused."""
    started = ev.WorkflowStarted(
        command.workflow_type,
        command.workflow_id,
        command.run_id,
        at,
        command.input,
        command.version,
        RUNTIME_VERSION,
        first_run_id=command.run_id,
        parent=ev.ParentLink(run.workflow_id, run.run_id, event_id),
    )
    row = RunRow(
        command.run_id,
        command.workflow_id,
        command.workflow_type,
        command.queue,
        "running",
        command.version,
        chain_id=command.run_id,
        started_at=at,
        inbox_last=1,
        ready_at=at,
        parent_run_id=run.run_id,
        parent_child=event_id,
        close_policy=command.close_policy,
    )
    accepted = Deliver(
        NewMessage(encode_struct(ev.ChildStarted(event_id, command.run_id, at))), run_id=run.run_id, drop=True
    )
    refused = Deliver(NewMessage(encode_struct(ev.ChildRefused(event_id, at))), run_id=run.run_id, drop=True)
    return CreateRun(row, (NewMessage(encode_struct(started)),), refusal=refused, acceptance=accepted if told else None)


def deliver_signal(run: RunIdentity, event_id: int, command: ev.SignalSent, at: int, *, told: bool) -> Deliver:
    """Send a signal in the sender's commit; the key makes it arrive once."""
    signal = ev.SignalReceived(command.name, command.payload, at, sender=run.workflow_id)
    gone = f"workflow {command.workflow_id!r} has no open run: signal {command.name!r} was not delivered"
    return Deliver(
        NewMessage(encode_struct(signal), f"{run.run_id}:{event_id}"),
        workflow_id=command.workflow_id,
        chain_id=command.run_id,
        drop=not told,
        reply_to=run.run_id if told else None,
        delivered=NewMessage(encode_struct(ev.SignalDelivered(event_id, at))) if told else None,
        undelivered=NewMessage(encode_struct(ev.SignalUndelivered(event_id, gone, at))) if told else None,
    )


def deliver_to_child(workflow_id: str, chain_id: str | None, fact: ev.Fact) -> Deliver:
    """Tell a child something, whichever of its runs is open; a stranger that has its workflow id is left alone."""
    return Deliver(NewMessage(encode_struct(fact)), workflow_id=workflow_id, chain_id=chain_id, drop=True)


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
