"""The replay of one history: each workflow task with exactly the facts and the time that it had.

Every command must be the recorded one. What the author needs to find the edit is in the notes of the error.
"""

import linecache
from pathlib import Path
from types import FrameType
from typing import Any

from derecho.errors import NondeterminismError, PayloadError
from derecho.history import History, RecordedTask
from derecho.journal.events import TERMINAL, AnyEvent, WorkflowTaskCompleted, WorkflowTerminated
from derecho.journal.payloads import Codec, Converter
from derecho.runtime.execution import Execution
from derecho.runtime.loop import keeping_generators
from derecho.runtime.source import is_ours_or_pythons
from derecho.workflow import WorkflowDefinition

_EVENTS_SHOWN = 12


def replay_history(
    workflow: WorkflowDefinition,
    history: History,
    *,
    codec: Codec | None = None,
    patches: dict[str, bool] | None = None,
) -> None:
    """Replay one history; an error has what the history says there and where the code was in its notes.

    `patches` gets what the code asked of `ctx.patched`, and the answers.
    """
    execution = workflow.new_execution(history.workflow_id, history.run_id, Converter(codec))
    task = None
    try:
        with keeping_generators():
            for task in history.tasks:
                replay_task(execution, task.decode())
        _check_end(execution, history)
    except (NondeterminismError, PayloadError) as exc:
        if task is not None:
            exc.add_note(_excerpt(task))
        where = waiting_at(execution)
        if where:
            exc.add_note("the code waits at\n" + "\n".join(f"  {line}" for line in where))
        raise
    finally:
        if patches is not None:
            patches.update(execution.patches)
        execution.close()


def _check_end(execution: Execution, history: History) -> None:
    """A closed history ends the code, too; an open one leaves it waiting."""
    last: list[dict[str, Any]] = history.tasks[-1].events if history.tasks else []
    closed = {kind.__struct_config__.tag for kind in TERMINAL if kind is not WorkflowTerminated}
    if execution.outcome is None and last and last[-1]["type"] in closed:
        raise NondeterminismError("history records the end of the run, and the code goes on")


def replay_task(execution: Execution, events: list[AnyEvent]) -> None:
    """Replay one workflow task; the code must ask for what its commands record."""
    for boundary, marker in enumerate(events):
        if isinstance(marker, WorkflowTaskCompleted):
            facts: Any = events[:boundary]
            recorded: Any = events[boundary + 1 :]
            execution.activate(facts, marker.at, recorded)
            return
    # else a termination from outside: no code ran


# --- what helps to find the edit --------------------------------------------------------------------------------------


def _excerpt(task: RecordedTask) -> str:
    """The events of a workflow task, as a person reads them."""
    lines = [f"  {number} {_describe(event)}" for number, event in enumerate(task.events, task.first_event)]
    left = len(lines) - _EVENTS_SHOWN
    shown = lines[:_EVENTS_SHOWN] + ([f"  … and {left} more"] if left > 0 else [])
    return f"history of workflow task {task.task}:\n" + "\n".join(shown)


def _describe(event: dict[str, Any]) -> str:
    about = [repr(event[name]) for name in ("name", "change", "workflow_type", "activity", "timer") if name in event]
    source = f" at {event['source']}" if event.get("source") else ""
    return " ".join([event["type"], *about]) + source


def waiting_at(execution: Execution) -> list[str]:
    """Where the fibers of a run wait: "app/orders.py:31 in order: await ctx.sleep(5)"."""
    found = []
    for fiber in execution.loop.fibers.values():
        frame = None if fiber.done() else innermost(fiber.get_coro())
        if frame is not None:
            code, line = frame.f_code, frame.f_lineno
            text = linecache.getline(code.co_filename, line).strip()
            found.append(f"{'/'.join(Path(code.co_filename).parts[-2:])}:{line} in {code.co_name}: {text}")
    return found


def innermost(awaited: Any) -> FrameType | None:
    """The author's frame in which a suspended coroutine waits."""
    found: FrameType | None = None
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is None:
            break
        if not is_ours_or_pythons(frame.f_code):
            found = frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return found
