"""Time travel: stop in pdb inside a workflow, at an event of its recorded past. Nothing but the code runs: offline."""

import bdb
import pdb
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from derecho.errors import NondeterminismError
from derecho.history import History
from derecho.journal import events as ev
from derecho.journal.payloads import Codec, Converter
from derecho.replay import replay_task
from derecho.runtime import guard
from derecho.runtime.execution import Execution
from derecho.runtime.source import is_ours_or_pythons
from derecho.workflow import WorkflowDefinition


def debug(
    history: History | str, workflow: WorkflowDefinition, *, at: int | None = None, codec: Codec | None = None
) -> None:
    """Replay a history (or the file of one), and stop in pdb where the code stood at an event.

    At what the code asked for (an activity, a timer …) it stops on the line that asked; at a fact, and at the end, on
    the first line that ran in that workflow task. By default at the last event. `continue` replays the rest,
    `quit` ends.

    Raises ValueError for an event that the history does not have, NondeterminismError where code and history differ.
    """
    found = history if isinstance(history, History) else History.loads(Path(history).read_text(encoding="utf-8"))
    at = len(found) if at is None else at
    if not 1 <= at <= len(found):
        raise ValueError(f"the history of workflow {found.workflow_id!r} has events 1 to {len(found)}, no event {at}")
    execution = workflow.new_execution(found.workflow_id, found.run_id, Converter(codec))
    debugger = _Debugger(execution)
    try:
        for task in found.tasks:
            last = task.first_event + len(task.events) - 1
            events = task.decode()
            if task.first_event <= at <= last:
                event = events[at - task.first_event]
                print(f"event {at}, {ev.kind(event)}, of workflow task {task.task}", file=debugger.stdout)
                debugger.stop_at(at, asked=_was_asked(events, at - task.first_event))
            replay_task(execution, events)
    except (bdb.BdbQuit, NondeterminismError):
        if not debugger.quitting:
            raise
    finally:
        sys.settrace(None)
        execution.close()


def _was_asked(events: list[ev.AnyEvent], place: int) -> bool:
    """Whether a line of the code asked for this event; when a run closes its code has returned."""
    before = any(isinstance(event, ev.WorkflowTaskCompleted) for event in events[:place])
    return before and not isinstance(events[place], ev.TERMINAL)


class _Debugger(pdb.Pdb):
    """Stops in the author's code only. While it talks, workflow code may touch the outside: it is a person who asks."""

    def __init__(self, execution: Execution) -> None:
        super().__init__()
        self._execution = execution
        self._at: int | None = None

    def stop_at(self, event_id: int, *, asked: bool) -> None:
        if not asked:
            self.reset()
            self.set_step()
            sys.settrace(self.trace_dispatch)
            return
        self._at = event_id
        execution: Any = self._execution
        command = execution.command

        def stopping(event: ev.CommandEvent) -> tuple[int, Any]:
            found: tuple[int, Any] = command(event)
            if found[0] == self._at:
                self._at = None
                self._stop_in(sys._getframe(1))
            return found

        execution.command = stopping

    def _stop_in(self, frame: FrameType | None) -> None:
        while frame is not None and is_ours_or_pythons(frame.f_code):
            frame = frame.f_back
        if frame is None:
            return
        self.reset()
        outer: FrameType | None = frame
        while outer is not None:
            outer.f_trace = self.trace_dispatch
            self.botframe: FrameType | None = outer
            outer = outer.f_back
        self.interaction(frame, None)
        if not self.quitting:
            sys.settrace(self.trace_dispatch)

    def stop_here(self, frame: FrameType) -> bool:
        return not is_ours_or_pythons(frame.f_code) and super().stop_here(frame)

    def interaction(self, frame: FrameType | None, traceback: Any) -> None:
        active, guard._state.active = guard._state.active, False
        try:
            super().interaction(frame, traceback)
        finally:
            guard._state.active = active
