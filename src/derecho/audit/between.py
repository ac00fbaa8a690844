"""What must hold between runs.

I10 a child and the parent that waits for it know of each other: it is open, or the parent has its outcome.
I11 a workflow id has at most one open run; a run that continued as new has its successor in the same chain.
I12 a message from a run is in its target's history or inbox once, exactly if its sender recorded that it was sent.

Messages between runs are written by the sender's own commit, so there is no outbox to look into (docs/decisions/0004).
A run takes the signals that it has not received on to its successor, so a signal may stand in several runs of a chain.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from derecho.audit.checks import Violation, check_unknown
from derecho.journal import events as ev
from derecho.journal.model import RunRow

if TYPE_CHECKING:
    from derecho.audit.snapshot import Snapshot

_CHILD_STATUS: dict[type[ev.Event], str] = {
    ev.ChildCompleted: "completed",
    ev.ChildFailed: "failed",
    ev.ChildCancelled: "cancelled",
    ev.ChildTerminated: "terminated",
}
Sent: TypeAlias = tuple[str, str, str, bytes, int]
"""A signal between runs, by what both sides record: sender, target, name, value, instant."""


def check_runs(snapshot: "Snapshot", retention: bool = False) -> list[Violation]:
    """`retention`: a closed run that is not there may have been deleted."""
    chains: dict[str, list[RunRow]] = defaultdict(list)
    for run in snapshot.runs.values():
        chains[run.chain_id].append(run)
    found = check_unknown(snapshot)
    for run in snapshot.runs.values():
        if snapshot.story(run.run_id).unreadable is None:
            found += _as_violations("I10", run, _children(snapshot, chains, run))
            found += _as_violations("I10", run, _parent(snapshot, run, retention))
            found += _as_violations("I11", run, _successor(snapshot, run, retention))
    open_runs = Counter(run.workflow_id for run in snapshot.runs.values() if run.is_open)
    found += [Violation("I11", name, "", f"{count} open runs") for name, count in open_runs.items() if count > 1]
    return found + ([] if retention else _check_signals(snapshot, chains)) + _check_keys(snapshot)


def _as_violations(invariant: str, run: RunRow, texts: Iterator[str]) -> list[Violation]:
    return [Violation(invariant, run.workflow_id, run.run_id, text) for text in texts]


def _children(snapshot: "Snapshot", chains: dict[str, list[RunRow]], run: RunRow) -> Iterator[str]:
    """Of a parent: each child was started or refused; it is open or its outcome is known; what is told is true."""
    story = snapshot.story(run.run_id)
    ends = {
        number: event
        for event in (*story.events, *story.facts)
        if isinstance(event, (ev.ChildCompleted, ev.ChildFailed, ev.ChildCancelled, ev.ChildTerminated))
        and (number := event.child)
    }
    refused = {event.child for event in (*story.events, *story.facts) if isinstance(event, ev.ChildRefused)}
    for (kind, number), child in story.scheduled.items():
        if kind != "child" or not isinstance(child, ev.ChildScheduled):
            continue
        runs = chains.get(child.run_id, [])
        is_open = any(item.is_open for item in runs)
        if run.is_open and story.ends(("child start", number)) != 1:
            yield f"child {number} was {story.ends(('child start', number))} times started or refused"
        if number in refused:
            if any(item.parent_run_id == run.run_id and item.parent_child == number for item in runs):
                yield f"child {number} was refused, and is there"
        elif run.is_open and runs and number not in ends and not is_open:
            yield f"child {number} has closed, and its parent was not told"
        elif run.is_open and not runs and number not in ends:
            yield f"child {number} was started, and is not there"
        if number in ends and runs:
            status = _CHILD_STATUS[type(ends[number])]
            if is_open or status not in {item.status for item in runs}:
                yield f"its parent was told that child {number} is {status}: {[item.status for item in runs]}"


def _parent(snapshot: "Snapshot", run: RunRow, retention: bool) -> Iterator[str]:
    """Of a child: its parent scheduled it."""
    parent = snapshot.runs.get(run.parent_run_id or "")
    if parent is None or snapshot.story(parent.run_id).unreadable is not None:
        if run.parent_run_id is not None and parent is None and run.is_open and not retention:
            yield f"its parent {run.parent_run_id} is not there"
        return
    event = snapshot.story(parent.run_id).scheduled.get(("child", run.parent_child or 0))
    if not isinstance(event, ev.ChildScheduled) or event.run_id != run.chain_id:
        yield f"event {run.parent_child} of its parent {parent.run_id} did not start it"


def _successor(snapshot: "Snapshot", run: RunRow, retention: bool) -> Iterator[str]:
    events = snapshot.story(run.run_id).events
    if not events or not isinstance(events[-1], ev.WorkflowContinuedAsNew):
        return
    following = snapshot.runs.get(events[-1].run_id)
    if following is None and retention:
        return
    if following is None:
        yield f"it continued as {events[-1].run_id}, which is not there"
    elif (following.chain_id, following.workflow_id) != (run.chain_id, run.workflow_id):
        yield f"it continued as {following.run_id}, which is of another chain or workflow id"


def _check_signals(snapshot: "Snapshot", chains: dict[str, list[RunRow]]) -> list[Violation]:
    sent: Counter[Sent] = Counter()
    delivered: dict[Sent, RunRow] = {}
    for run in snapshot.runs.values():
        story = snapshot.story(run.run_id)
        told = {event.signal for event in (*story.events, *story.facts) if isinstance(event, ev.SignalDelivered)}
        for event_id, at in story.sent_at.items():
            event = story.scheduled["signal", event_id]
            if isinstance(event, ev.SignalSent):
                place = (run.workflow_id, event.workflow_id, event.name, event.payload.raw(), at)
                sent[place] += 1
                if event_id in told:
                    delivered[place] = run
    found: list[Violation] = []
    known = {run.workflow_id for run in snapshot.runs.values()}
    ended: set[str] = set()  # workflow ids of which a chain has closed, maybe with unread messages
    seen: set[Sent] = set()
    for run in snapshot.runs.values():
        if not run.is_open and run.status != "continued_as_new":
            ended.add(run.workflow_id)
        story = snapshot.story(run.run_id)
        got = Counter(
            (fact.sender, run.workflow_id, fact.name, fact.payload.raw(), fact.at)
            for fact in (*story.events, *story.facts)
            if isinstance(fact, ev.SignalReceived) and fact.sender
        )
        seen |= got.keys()
        for place, count in got.items():
            if count > sent[place] and place[0] in known:
                text = f"signal {place[2]!r} of {place[0]!r} was sent {sent[place]} times, and came {count} times"
                found.append(Violation("I12", run.workflow_id, run.run_id, text))
    for place, run in delivered.items():
        if place not in seen and place[1] in known and place[1] not in ended:
            text = f"its signal {place[2]!r} was delivered to {place[1]!r}, which never got it"
            found.append(Violation("I12", run.workflow_id, run.run_id, text))
    return found


def _check_keys(snapshot: "Snapshot") -> list[Violation]:
    """A key `run:event` says that a signal of that event has been delivered."""
    found = []
    for chain_id, keys in snapshot.keys.items():
        for key in keys:
            run_id, _, event_id = key.rpartition(":")
            run = snapshot.runs.get(run_id)
            if run is None or not event_id.isdigit():
                continue
            story = snapshot.story(run_id)
            if story.unreadable is None and int(event_id) not in story.sent_at:
                text = f"event {event_id} is known in chain {chain_id} as a signal that was sent, and is none"
                found.append(Violation("I12", run.workflow_id, run_id, text))
    return found
