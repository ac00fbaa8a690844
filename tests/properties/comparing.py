"""Two histories of one program, and one history with itself, replayed."""

from typing import Any

import msgspec

import derecho
from derecho import History
from derecho.journal import events as ev
from derecho.journal.payloads import Converter
from derecho.journal.wire import encode_struct
from derecho.replay import replay_task
from derecho.workflow import WorkflowDefinition

_LEFT_OUT = ("worker", "attempt", "started_at", "traceback", "value", "cause")
"""What may differ: who did it, in which attempt (a failure's cause says so, too), the value of a side effect."""


def outcome(text: str | None) -> Any:
    """The terminal event of a run, in the same way."""
    return _strip(msgspec.json.decode(text or "null"))


def _strip(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strip(item) for key, item in value.items() if key not in _LEFT_OUT}
    if isinstance(value, list):
        return [_strip(item) for item in value]
    return value


def check_every_prefix(workflow: WorkflowDefinition, history: History) -> int:
    """Replay the first k tasks cold, then let the code live through the next one: it asks for what is recorded."""
    tasks = [task for task in history.tasks if task.events[-1]["type"] != "workflow_terminated"]
    for k in range(len(tasks)):
        execution = workflow.new_execution(history.workflow_id, history.run_id, Converter())
        try:
            for task in tasks[:k]:
                replay_task(execution, task.decode())
            events = tasks[k].decode()
            boundary = next(n for n, event in enumerate(events) if isinstance(event, ev.WorkflowTaskCompleted))
            facts: Any = events[:boundary]
            marker: Any = events[boundary]
            asked = [_comparable(command) for command in execution.activate(facts, marker.at)]
            assert asked == [_comparable(command) for command in events[boundary + 1 :]], f"task {k + 1} differs"
        finally:
            assert execution.close() == []
    derecho.replay(workflow, history)
    return len(tasks)


def _comparable(command: Any) -> str:
    if isinstance(command, ev.SideEffectRecorded):
        return f"side effect at {command.source}"
    text = encode_struct(command)
    return text.partition('"traceback"')[0]
