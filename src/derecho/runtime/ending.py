"""What a closing run leaves behind, in the commit that closes it.

Its parent is told. Its children follow their close policy. Signals and abandoned children that it asked for in its last
task still go out; everything else that its fibers wanted is discarded. Continue-as-new opens the successor, which gets
the signals that nobody received.
"""

from collections.abc import Sequence

from derecho.journal import events as ev
from derecho.journal.changes import Advance, Change, CreateRun, Deliver, NewMessage, RequestTerminate
from derecho.journal.model import RunRow
from derecho.journal.wire import encode_struct
from derecho.runtime.loop import RUNTIME_VERSION
from derecho.runtime.rows import RunIdentity, create_child, deliver_signal, deliver_to_child, history_row


def leave_behind(
    run: RunIdentity,
    first: int,
    commands: Sequence[ev.CommandEvent],
    outcome: ev.CommandEvent,
    children: Sequence[ev.ChildScheduled],
    at: int,
) -> list[Change]:
    """The changes that go with a terminal command; `first` is the event id of the first command."""
    changes: list[Change] = []
    for event_id, command in enumerate(commands, first):
        if isinstance(command, ev.SignalSent):
            changes.append(deliver_signal(run, event_id, command, at, told=False))
        elif isinstance(command, ev.ChildScheduled) and command.close_policy == "abandon":
            changes.append(create_child(run, event_id, command, at, told=False))
    asked_now = {command.run_id for command in commands if isinstance(command, ev.ChildScheduled)}
    for child in children:
        if child.run_id not in asked_now:
            chain, policy = child.run_id, child.close_policy  # a chain is named by its first run
            changes.extend(close_child(run.workflow_id, chain, chain, child.workflow_id, policy, at))
    if run.parent is not None:
        told = tell_parent(run.parent, outcome, at)
        if told is not None:
            changes.append(told)
    return changes


def close_child(
    parent_id: str, run_id: str, chain_id: str, workflow_id: str, policy: ev.ClosePolicy | None, at: int
) -> list[Change]:
    """A parent has closed: what that means for one open child."""
    if policy == "terminate":
        return [RequestTerminate(run_id, f"its parent {parent_id!r} closed")]
    if policy == "cancel":
        request = ev.CancelRequested(f"its parent {parent_id!r} closed", at, actor=parent_id)
        return [deliver_to_child(workflow_id, chain_id, request)]
    return []


def tell_parent(parent: tuple[str, int], outcome: ev.Event, at: int) -> Deliver | None:
    """The child's result for its parent's inbox; a parent that has closed gets nothing."""
    run_id, child = parent
    fact: ev.Fact
    match outcome:
        case ev.WorkflowCompleted():
            fact = ev.ChildCompleted(child, outcome.result, at)
        case ev.WorkflowFailed():
            fact = ev.ChildFailed(child, outcome.failure, at)
        case ev.WorkflowCancelled():
            fact = ev.ChildCancelled(child, outcome.reason, at)
        case ev.WorkflowTerminated():
            fact = ev.ChildTerminated(child, outcome.reason, at)
        case _:
            return None  # continued as new: the successor has the parent now
    return Deliver(NewMessage(encode_struct(fact)), run_id=run_id, drop=True)


def terminate(
    row: RunRow, children: Sequence[RunRow], event: ev.WorkflowTerminated, claim: str | None
) -> tuple[Change, ...]:
    """Close a run from outside, wherever its code is."""
    history = history_row(row.head, [event], event.at)
    advance = Advance(
        row.run_id, row.head, history, row.events + 1, "terminated", claim=claim, outcome=encode_struct(event)
    )
    changes: list[Change] = [advance]
    for child in children:
        policy = child.close_policy
        changes.extend(close_child(row.workflow_id, child.run_id, child.chain_id, child.workflow_id, policy, event.at))
    parent = RunIdentity.of(row).parent
    told = tell_parent(parent, event, event.at) if parent is not None else None
    return (*changes, told) if told is not None else tuple(changes)


def successor(
    run: RunIdentity,
    started: ev.WorkflowStarted,
    command: ev.WorkflowContinuedAsNew,
    unread: Sequence[ev.SignalReceived],
    cancel: ev.CancelRequested | None,
    close_policy: ev.ClosePolicy | None,
    at: int,
) -> tuple[CreateRun, list[ev.Fact]]:
    """The run that goes on after continue-as-new, and its first facts: the start, a request to cancel, the signals."""
    first = ev.WorkflowStarted(
        command.workflow_type,
        run.workflow_id,
        command.run_id,
        at,
        command.input,
        command.version,
        RUNTIME_VERSION,
        started.python,
        run.chain_id,
        continued_from=run.run_id,
        attempt=started.attempt,
        parent=started.parent,
        trace=started.trace,
    )
    facts: list[ev.Fact] = [first]
    if cancel is not None:
        facts.append(cancel)
    facts.extend(unread)
    row = RunRow(
        command.run_id,
        run.workflow_id,
        command.workflow_type,
        command.queue,
        "running",
        command.version,
        run.chain_id,
        at,
        inbox_last=len(facts),
        ready_at=at,
        parent_run_id=run.parent[0] if run.parent is not None else None,
        parent_child=run.parent[1] if run.parent is not None else None,
        close_policy=close_policy,
    )
    # The keys of these signals are known to the chain already, so the messages carry none.
    return CreateRun(row, tuple(NewMessage(encode_struct(fact)) for fact in facts)), facts
