"""One run driven by hand, without engine or store: facts in, commands out.

What a `Drive` does is recorded as the engine would record it, so that `replay` runs the same code, or other code, over
the same history.
"""

from collections.abc import Sequence
from typing import Any

import derecho
from derecho import History, Signal
from derecho.clock import Duration, micros
from derecho.journal import events as ev
from derecho.journal.failures import cancelled_failure, to_failure
from derecho.journal.payloads import Converter
from derecho.journal.wire import FIRST_DIGEST, HistoryRow, chain, decode_events, encode_events
from derecho.runtime.execution import Execution
from derecho.workflow import WorkflowDefinition
from tests.support.clocks import START

WORKFLOW_ID, RUN_ID = "order-1", "run-1"


class Drive:
    """A run of `workflow`. `events` is its history so far, `rows` the same as a store would hold it."""

    def __init__(self, workflow: WorkflowDefinition, *args: Any) -> None:
        self.workflow = workflow
        self.converter = Converter()
        self.execution = self._new_execution(workflow)
        self.at = START
        self.events: list[ev.AnyEvent] = []
        self.rows: list[HistoryRow] = []
        values = workflow.signature.encode(workflow.signature.bind(args, {}), self.converter)
        self._started = ev.WorkflowStarted(workflow.name, WORKFLOW_ID, RUN_ID, START, values)

    def _new_execution(self, workflow: WorkflowDefinition) -> Execution:
        return workflow.new_execution(WORKFLOW_ID, RUN_ID, self.converter)

    # --- workflow tasks ----------------------------------------------------------------------------------------------

    def begin(self, *more: ev.Fact) -> list[ev.CommandEvent]:
        """The first workflow task."""
        return self.task(self._started, *more)

    def task(self, *facts: ev.Fact, after: Duration = 0.0) -> list[ev.CommandEvent]:
        """One workflow task with these facts, `after` a while; the commands that the code asked for."""
        self.at += micros(after)
        commands = list(self.execution.activate(facts, self.at))
        events: Sequence[ev.AnyEvent] = [*facts, ev.WorkflowTaskCompleted(self.at), *commands]
        number, data = len(self.rows) + 1, encode_events(events)
        digest = chain(self.rows[-1].digest if self.rows else FIRST_DIGEST, number, self.at, data)
        self.rows.append(HistoryRow(number, len(self.events) + 1, self.at, data, digest))
        self.events.extend(events)
        return commands

    def take_over(self, other: "Drive") -> None:
        """Go on where another run stands, as a worker with this code does: by replaying its history."""
        for row in other.rows:
            self.execution.activate(*_parts(row))
        self.at, self.events, self.rows = other.at, list(other.events), list(other.rows)

    # --- facts -------------------------------------------------------------------------------------------------------

    def completed(self, name: str, value: Any = None, nth: int = 1) -> ev.ActivityCompleted | ev.StepCompleted:
        """The `nth` activity or step of this name gave `value`."""
        payload = self.converter.encode(value, "a result")
        event_id = self._id(name, nth)
        if isinstance(self.events[event_id - 1], ev.StepScheduled):
            return ev.StepCompleted(event_id, payload, self.at)
        return ev.ActivityCompleted(event_id, payload, self.at)

    def failed(self, name: str, error: Exception, nth: int = 1) -> ev.ActivityFailed:
        return ev.ActivityFailed(self._id(name, nth), to_failure(error), self.at)

    def ended_cancelled(self, name: str, nth: int = 1) -> ev.ActivityCancelled:
        return ev.ActivityCancelled(self._id(name, nth), cancelled_failure("cancelled"), self.at)

    def fired(self, nth: int = 1) -> ev.TimerFired:
        """The `nth` timer of the run is due."""
        timers = [number for number, event in enumerate(self.events, 1) if isinstance(event, ev.TimerScheduled)]
        return ev.TimerFired(timers[nth - 1], self.at)

    def signal(self, signal: Signal[Any], value: Any) -> ev.SignalReceived:
        return ev.SignalReceived(signal.name, self.converter.encode(value, "a signal"), self.at)

    def cancel(self, reason: str = "no longer wanted") -> ev.CancelRequested:
        return ev.CancelRequested(reason, self.at)

    def _id(self, name: str, nth: int) -> int:
        kinds = (ev.ActivityScheduled, ev.StepScheduled)
        found = [n for n, event in enumerate(self.events, 1) if isinstance(event, kinds) and event.name == name]
        return found[nth - 1]

    # --- what came of it ---------------------------------------------------------------------------------------------

    @property
    def outcome(self) -> ev.CommandEvent | None:
        return self.execution.outcome

    @property
    def is_over(self) -> bool:
        return self.outcome is not None

    @property
    def result(self) -> Any:
        """The value that the workflow returned."""
        assert isinstance(self.outcome, ev.WorkflowCompleted), self.outcome
        return self.workflow.signature.decode_result(self.outcome.result, self.converter)

    @property
    def failure(self) -> tuple[str, str]:
        """Class and message of the error that the workflow raised."""
        assert isinstance(self.outcome, ev.WorkflowFailed), self.outcome
        return self.outcome.failure.type.rpartition(":")[2], self.outcome.failure.message

    def history(self) -> History:
        return History.from_rows(WORKFLOW_ID, RUN_ID, self.workflow.name, self.rows)

    def replay(self, workflow: WorkflowDefinition | None = None) -> None:
        """Run the code, or other code, over this history as a worker does that never saw the run."""
        derecho.replay(workflow or self.workflow, self.history())

    def check(self) -> None:
        """Cold is like warm: a worker that takes the run over at any task asks for the same, byte by byte."""
        for taken_over in range(len(self.rows) + 1):
            cold = self._new_execution(self.workflow)
            try:
                for number, row in enumerate(self.rows):
                    facts, at, commands = _parts(row)
                    asked = cold.activate(facts, at, commands if number < taken_over else None)
                    assert encode_events(asked) == encode_events(commands), f"task {row.task}, cold at {taken_over}"
            finally:
                cold.close()

    def close(self) -> list[str]:
        return self.execution.close()


def _parts(row: HistoryRow) -> tuple[list[Any], int, list[Any]]:
    """Facts, time and commands of a workflow task, as they are in the journal."""
    events = decode_events(row.data)
    place = next(place for place, event in enumerate(events) if isinstance(event, ev.WorkflowTaskCompleted))
    return events[:place], row.at, events[place + 1 :]


def names(commands: Sequence[ev.CommandEvent]) -> list[str]:
    """Commands as short words: "activity charge", "timer 60", "completed"."""
    return [_short(command) for command in commands]


def _short(command: ev.CommandEvent) -> str:
    match command:
        case ev.ActivityScheduled() | ev.StepScheduled():
            return command.name
        case ev.TimerScheduled():
            return f"timer {command.duration / 1_000_000:g}"
        case _:
            return ev.kind(command)
