"""Recorded histories against today's code.

Each workflow task is replayed with exactly the facts and the time that it had; every command must be the recorded one.
"""

import glob
from pathlib import Path
from typing import Any

from derecho.errors import NondeterminismError, PayloadError
from derecho.journal.events import TERMINAL, AnyEvent, WorkflowTaskCompleted, WorkflowTerminated
from derecho.journal.history import History
from derecho.journal.payloads import Codec, Converter
from derecho.runtime.execution import Execution
from derecho.workflow import WorkflowDefinition


def replay(workflow: WorkflowDefinition, history: History | str, *, codec: Codec | None = None) -> None:
    """Replay a history (or the histories in a file, or in all files of a glob) against a workflow's code.

    Raises NondeterminismError with both source lines when they differ, PayloadError for what cannot be read, and
    FileNotFoundError when a path or glob names nothing.
    """
    if isinstance(history, History):
        _replay(workflow, history, Converter(codec))
        return
    paths = sorted(glob.glob(history, recursive=True))
    if not paths:
        raise FileNotFoundError(f"no history file matches {history!r}")
    for path in paths:
        _replay(workflow, History.loads(Path(path).read_text(encoding="utf-8")), Converter(codec))


def _replay(workflow: WorkflowDefinition, history: History, converter: Converter) -> None:
    execution = workflow.new_execution(history.workflow_id, history.run_id, converter)
    try:
        for task in history.tasks:
            replay_task(execution, task.decode(), task.at)
        _check_end(execution, history)
    except (NondeterminismError, PayloadError) as exc:
        exc.add_note(f"while replaying run {history.run_id} of workflow {history.workflow_id!r}")
        raise
    finally:
        execution.close()


def _check_end(execution: Execution, history: History) -> None:
    """A closed history ends the code, too; an open one leaves it waiting."""
    last: list[dict[str, Any]] = history.tasks[-1].events if history.tasks else []
    closed = {kind.__struct_config__.tag for kind in TERMINAL if kind is not WorkflowTerminated}
    if execution.outcome is None and last and last[-1]["type"] in closed:
        raise NondeterminismError("history records the end of the run, and the code goes on")


def replay_task(execution: Execution, events: list[AnyEvent], at: int) -> None:
    """Replay one workflow task; the code must ask for what its commands record."""
    boundary = next((n for n, event in enumerate(events) if isinstance(event, WorkflowTaskCompleted)), None)
    if boundary is None:
        return  # a termination from outside: no code ran
    marker = events[boundary]
    facts: Any = events[:boundary]
    recorded: Any = events[boundary + 1 :]
    execution.activate(facts, marker.at if isinstance(marker, WorkflowTaskCompleted) else at, recorded)
