"""What must hold for each run by itself.

I1 event ids are dense: 1, 2, 3 …
I2 a run is closed by one terminal event, the last; its row says the same.
I3 the digests chain, and the newest is the run's head.
I4 every outcome is of something that was scheduled before, and there is one.
I5 an activity without an outcome has one row, or its outcome is unread in the inbox.
I6 a closed or unknown run has no row in any queue.
I7 a timer that neither fired nor was cancelled has one row, or has fired into the inbox.
I8 who has something to do is ready, held by a known worker, or blocked.
I9 the inbox holds exactly the messages between what was read and what came last.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from derecho.errors import StoreError
from derecho.journal import events as ev
from derecho.journal.model import CLAIMED, RunRow
from derecho.journal.wire import decode_events, verify

if TYPE_CHECKING:
    from derecho.audit.snapshot import Snapshot
    from derecho.audit.story import Story

_STATUS: dict[type[ev.Event], str] = {
    ev.WorkflowCompleted: "completed",
    ev.WorkflowFailed: "failed",
    ev.WorkflowCancelled: "cancelled",
    ev.WorkflowContinuedAsNew: "continued_as_new",
    ev.WorkflowTerminated: "terminated",
}


class Violation(msgspec.Struct, frozen=True, order=True):
    """Something that Derecho promises never to happen; `invariant` is "I1" to "I12"."""

    invariant: str
    workflow_id: str
    run_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant}: run {self.run_id} of {self.workflow_id!r}: {self.text}"


def check_run(snapshot: "Snapshot", run: RunRow) -> list[Violation]:
    """What is wrong with one run and the rows that hang on it."""
    found: list[Violation] = []

    def add(invariant: str, problems: Iterator[str]) -> None:
        found.extend(Violation(invariant, run.workflow_id, run.run_id, text) for text in problems)

    story = snapshot.story(run.run_id)
    add("I1", _dense(snapshot, run, story))
    add("I3", _chain(snapshot, run, story))
    add("I9", _inbox(snapshot, run))
    if story.unreadable is not None:
        return found
    add("I2", _terminal(run, story))
    add("I4", _outcomes(story))
    add("I8", _awake(snapshot, run))
    if run.is_open:
        add("I5", _activities(snapshot, run, story))
        add("I7", _timers(snapshot, run, story))
    else:
        add("I6", _closed(snapshot, run))
    return found


def check_unknown(snapshot: "Snapshot") -> list[Violation]:
    """Rows that hang on no run (I1, I6), and keys of chains that have ended (I6)."""
    tables = ("inbox", snapshot.inbox), ("activities", snapshot.activities), ("timers", snapshot.timers)
    found = [
        Violation("I6", "", run_id, f"rows in `{name}`, but no such run")
        for name, table in tables
        for run_id, rows in table.items()
        if rows and run_id not in snapshot.runs
    ]
    history = [run_id for run_id, rows in snapshot.history.items() if rows and run_id not in snapshot.runs]
    found += [Violation("I1", "", run_id, "a history, but no such run") for run_id in history]
    open_chains = {run.chain_id for run in snapshot.runs.values() if run.is_open}
    for chain_id in sorted(set(snapshot.keys) - open_chains):
        text = f"{len(snapshot.keys[chain_id])} message keys of a chain that has no open run"
        found.append(Violation("I6", "", chain_id, text))
    found += [Violation("I6", "", run_id, "its rows in several tables do not fit") for run_id in snapshot.strays]
    return found


def _dense(snapshot: "Snapshot", run: RunRow, story: "Story") -> Iterator[str]:
    rows, events = snapshot.history[run.run_id], 0
    for number, row in enumerate(rows, 1):
        if row.task != number:
            yield f"workflow task {number} is missing, the next one is {row.task}"
            return
        if story.unreadable is None:
            if row.first_event != events + 1:
                yield f"workflow task {number} begins with event {row.first_event}, not {events + 1}"
            events += len(decode_events(row.data))
    if run.tasks != len(rows):
        yield f"its row counts {run.tasks} workflow tasks, its history has {len(rows)}"
    if story.unreadable is None and run.events != events:
        yield f"its row counts {run.events} events, its history has {events}"


def _chain(snapshot: "Snapshot", run: RunRow, story: "Story") -> Iterator[str]:
    if story.unreadable is not None:
        yield story.unreadable
        return
    try:
        verify(snapshot.history[run.run_id], head=run.digest, run_id=run.run_id)
    except StoreError as exc:
        yield str(exc)


def _terminal(run: RunRow, story: "Story") -> Iterator[str]:
    ends = [number for number, event in enumerate(story.events, 1) if isinstance(event, ev.TERMINAL)]
    if len(ends) > 1 or (ends and ends[0] != len(story.events)):
        yield f"terminal events {ends} of {len(story.events)}"
    starts = [number for number, event in enumerate(story.events, 1) if isinstance(event, ev.WorkflowStarted)]
    if story.events and starts != [1] and not isinstance(story.events[0], ev.WorkflowTerminated):
        yield f"it was started by the events {starts}, not by the first"
    if run.is_open:
        if ends:
            yield f"it is {run.status}, and event {ends[0]} ended it"
        return
    last = story.events[-1] if story.events else None
    if last is None or run.status != _STATUS.get(type(last)):
        yield f"it is {run.status}, and its last event is {'none' if last is None else ev.kind(last)}"
    elif run.outcome is None or decode_events(f"[{run.outcome}]") != [last]:
        yield "its outcome is not its last event"


def _outcomes(story: "Story") -> Iterator[str]:
    yield from story.misplaced
    for about in story.recorded.keys() | story.unread.keys():
        if story.ends(about) > 1:
            yield f"{about[0]} {about[1]} has {story.ends(about)} outcomes, {story.unread[about]} of them unread"


def _activities(snapshot: "Snapshot", run: RunRow, story: "Story") -> Iterator[str]:
    rows = {row.activity: row for row in snapshot.activities[run.run_id]}
    waiting = story.open("activity")
    for number, event in waiting.items():
        if (number in rows) + story.unread["activity", number] != 1:
            messages = story.unread["activity", number]
            yield f"activity {number} has no outcome, {int(number in rows)} rows and {messages} messages"
        elif number in rows and isinstance(event, ev.ActivityScheduled) and rows[number].name != event.name:
            yield f"activity {number} is {event.name!r}, its row says {rows[number].name!r}"
    for number, row in rows.items():
        is_lost = (run.run_id, number) in snapshot.lost
        if number not in waiting:
            yield f"there is a row of activity {number}, which does not wait for an outcome"
        if (row.claim is None) != (row.worker is None):
            yield f"activity {number} has half a claim: token {row.claim}, worker {row.worker}"
        if row.worker is not None and row.worker not in snapshot.workers and not is_lost:
            yield f"activity {number} is held by the unknown worker {row.worker}, and nobody looks after it"
        if is_lost and row.worker is None:
            yield f"activity {number} counts as lost, and nobody holds it"


def _timers(snapshot: "Snapshot", run: RunRow, story: "Story") -> Iterator[str]:
    rows = {row.timer: row for row in snapshot.timers[run.run_id]}
    waiting = story.open("timer")
    for number, event in waiting.items():
        fired, has_row = story.unread["timer", number], number in rows
        if number in story.cancelled:
            if has_row:
                yield f"timer {number} was cancelled, and has a row"
        elif has_row + fired != 1:
            yield f"timer {number} is pending, with {int(has_row)} rows and {fired} messages"
        elif has_row and isinstance(event, ev.TimerScheduled) and rows[number].fire_at != event.fire_at:
            yield f"timer {number} is to fire at {event.fire_at}, its row says {rows[number].fire_at}"
    for number in rows.keys() - waiting.keys():
        yield f"there is a row of timer {number}, which is not pending"


def _closed(snapshot: "Snapshot", run: RunRow) -> Iterator[str]:
    tables = ("inbox", snapshot.inbox), ("activities", snapshot.activities), ("timers", snapshot.timers)
    for name, table in tables:
        if table.get(run.run_id):
            yield f"it is {run.status}, and has {len(table[run.run_id])} rows in `{name}`"
    if run.claim is not None or run.worker is not None or run.ready_at is not None or run.terminate is not None:
        yield f"it is {run.status}, and ready at {run.ready_at}, held by {run.worker}, to end by {run.terminate}"


def _awake(snapshot: "Snapshot", run: RunRow) -> Iterator[str]:
    if not run.is_open:
        return
    held = run.claim is not None
    if held != (run.worker is not None) or held != (run.ready_at == CLAIMED):
        yield f"half a claim: token {run.claim}, worker {run.worker}, ready at {run.ready_at}"
    elif held and run.worker not in snapshot.workers:
        yield f"it is held by the unknown worker {run.worker}"
    if (run.status == "blocked") != (run.blocked_reason is not None):
        yield f"it is {run.status}, and its reason is {run.blocked_reason}"
    if run.ready_at is not None:
        return
    if run.inbox_last > run.inbox_read:
        yield f"it sleeps on {run.inbox_last - run.inbox_read} unread messages"
    if run.status == "blocked" or run.tasks == 0:
        yield f"it sleeps for ever: {run.status}, after {run.tasks} workflow tasks"


def _inbox(snapshot: "Snapshot", run: RunRow) -> Iterator[str]:
    numbers = [message.number for message in snapshot.inbox[run.run_id]]
    if run.is_open and numbers != list(range(run.inbox_read + 1, run.inbox_last + 1)):
        yield f"read up to {run.inbox_read}, last {run.inbox_last}, and the inbox holds {numbers}"
    if run.inbox_read > run.inbox_last:
        yield f"read up to {run.inbox_read}, and the last message is {run.inbox_last}"
