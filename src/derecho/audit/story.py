"""What one run's history and inbox say, sorted by what each event is about."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

from derecho.errors import PayloadError
from derecho.journal import events as ev
from derecho.journal.model import Message
from derecho.journal.wire import HistoryRow, decode_events, decode_fact


class Story:
    """`recorded` and `unread` count the outcomes in history and inbox: kind of thing and its event id.

    `misplaced` names outcomes and cancellations that stand before what they are about, or twice.
    """

    def __init__(self, rows: Sequence[HistoryRow], messages: Sequence[Message]) -> None:
        self.unreadable: str | None = None
        self.events: list[ev.AnyEvent] = []
        self.facts: list[ev.Fact] = []  # in the inbox
        self.scheduled: dict[tuple[str, int], ev.AnyEvent] = {}
        self.recorded: Counter[tuple[str, int]] = Counter()
        self.unread: Counter[tuple[str, int]] = Counter()
        self.cancelled: set[int] = set()  # timers
        self.fired_now: set[int] = set()  # timers that fired in the workflow task at hand
        self.misplaced: list[str] = []
        self.sent_at: dict[int, int] = {}  # event id of a SignalSent -> the time of its task
        try:
            for row in rows:
                self.events += decode_events(row.data)
            self.facts = [decode_fact(message.data) for message in messages]
        except PayloadError as exc:
            self.unreadable = str(exc)
            return
        self._sort()

    def _sort(self) -> None:
        at = 0
        for event_id, event in enumerate(self.events, 1):
            if isinstance(event, ev.WorkflowTaskCompleted):
                at = event.at
                self.fired_now = {
                    fact.timer for fact in self._facts_before(event_id) if isinstance(fact, ev.TimerFired)
                }
            elif isinstance(event, ev.SignalSent):
                self.sent_at[event_id] = at
            self._note(event_id, event)
        for fact in self.facts:
            about = outcome_of(fact)
            if about is not None:
                self._check(about, type(fact).__name__)
                self.unread[about] += 1

    def _facts_before(self, event_id: int) -> Iterator[ev.AnyEvent]:
        """The facts of the workflow task whose boundary this event is, newest first."""
        for event in reversed(self.events[: event_id - 1]):
            if not isinstance(event, get_args(ev.Fact)):
                return
            yield event

    def _note(self, event_id: int, event: ev.AnyEvent) -> None:
        kind = kind_of(event)
        if kind is not None:
            self.scheduled[kind, event_id] = event
        about = outcome_of(event)
        if about is not None:
            self._check(about, f"event {event_id}, {ev.kind(event)},")
            self.recorded[about] += 1
        match event:
            case ev.TimerCancelled(timer=timer):
                self._check_cancel("timer", timer, event_id)
                # In one task it may fire after the code has cancelled it: facts stand before commands.
                fired = self.recorded["timer", timer] and timer not in self.fired_now
                if timer in self.cancelled or fired:
                    self.misplaced.append(f"event {event_id} cancels timer {timer}, which was fired or cancelled")
                self.cancelled.add(timer)
            case ev.ActivityCancelRequested(activity=activity):
                self._check_cancel("activity", activity, event_id)
            case ev.ChildCancelRequested(child=child):
                self._check_cancel("child", child, event_id)

    def _check(self, about: tuple[str, int], name: str) -> None:
        if about not in self.scheduled and not (about[0] == "child start" and ("child", about[1]) in self.scheduled):
            self.misplaced.append(f"{name} is about {about[0]} {about[1]}, which was not scheduled before")

    def _check_cancel(self, kind: str, number: int, event_id: int) -> None:
        if (kind, number) not in self.scheduled:
            self.misplaced.append(f"event {event_id} cancels {kind} {number}, which was not scheduled before")

    def ends(self, about: tuple[str, int]) -> int:
        """How many outcomes of a thing there are, in history and inbox."""
        return self.recorded[about] + self.unread[about]

    def open(self, kind: str) -> dict[int, ev.AnyEvent]:
        """What was scheduled and has no outcome in history."""
        return {
            number: event
            for (name, number), event in self.scheduled.items()
            if name == kind and not self.recorded[name, number]
        }


def kind_of(event: ev.AnyEvent) -> str | None:
    """What an event schedules; its own id names it."""
    match event:
        case ev.ActivityScheduled():
            return "activity"
        case ev.TimerScheduled():
            return "timer"
        case ev.CancelRequested(limit=int()):
            return "timer"
        case ev.StepScheduled():
            return "step"
        case ev.ChildScheduled():
            return "child"
        case ev.SignalSent():
            return "signal"
    return None


def outcome_of(event: ev.AnyEvent) -> tuple[str, int] | None:
    """What an event ends; whether a child began is an outcome of its own."""
    match event:
        case ev.ActivityCompleted() | ev.ActivityFailed() | ev.ActivityTimedOut() | ev.ActivityCancelled():
            return "activity", event.activity
        case ev.TimerFired():
            return "timer", event.timer
        case ev.StepCompleted() | ev.StepFailed():
            return "step", event.step
        case ev.ChildStarted() | ev.ChildRefused():
            return "child start", event.child
        case ev.ChildCompleted() | ev.ChildFailed() | ev.ChildCancelled() | ev.ChildTerminated():
            return "child", event.child
        case ev.SignalDelivered() | ev.SignalUndelivered():
            return "signal", event.signal
    return None
