"""Replay recorded histories and keep what the code asked for, byte by byte.

`python -m tests.reference.replaying [gc=1|gc=off]` prints one line for each golden history, in a process of its own.
It must not rely on `assert`, since it also runs with -O.
"""

import gc
import hashlib
import locale
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from derecho import History, NondeterminismError
from derecho.journal import events as ev
from derecho.journal.payloads import Converter
from derecho.replay import replay_task
from derecho.runtime.execution import Execution
from tests.reference.corpus import golden, load, name_of
from tests.reference.workflows import REFERENCE


def asked_for(history: History) -> Iterator[tuple[ev.CommandEvent, ev.CommandEvent]]:
    """Each command of a history, as the code asks for it now and as it was recorded."""
    execution = REFERENCE[history.workflow_type].new_execution(history.workflow_id, history.run_id, Converter())
    asked: list[ev.CommandEvent] = []
    command = execution.command

    def noting(event: ev.CommandEvent) -> tuple[int, Any]:
        asked.append(event)
        answer: tuple[int, Any] = command(event)
        return answer

    execution.command = noting  # type: ignore[method-assign]  # on this run only
    try:
        for task in history.tasks:
            asked.clear()
            events = task.decode()
            replay_task(execution, events)
            recorded = [event for event in events if isinstance(event, ev.Command)]
            if _skips_markers(asked, recorded):
                recorded = [event for event in recorded if not isinstance(event, ev.PatchMarked)]
            yield from zip(asked, recorded, strict=True)
        _must_be_over(execution, history)
    finally:
        execution.close()


def _skips_markers(asked: list[ev.CommandEvent], recorded: list[Any]) -> bool:
    """Whether today's code has no patch any more where history has its marker, as it may."""
    return len(asked) < len(recorded) and not any(isinstance(event, ev.PatchMarked) for event in asked)


def _must_be_over(execution: Execution, history: History) -> None:
    if execution.outcome is None and history.tasks[-1].events[-1]["type"] != "workflow_terminated":
        raise NondeterminismError(f"run {history.run_id} goes on where its history ends")


def as_bytes(command: ev.CommandEvent) -> bytes:
    """All of a command but its source line, the text of tracebacks, and what a side effect gave: that is only once."""
    fields = msgspec.json.decode(msgspec.json.encode(command))
    if fields["type"] == "side_effect_recorded":
        fields = {"type": fields["type"]}
    return msgspec.json.encode(_without(fields, {"source", "traceback"}))


def _without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def fingerprint(history: History) -> str:
    digest = hashlib.sha256()
    for asked, _ in asked_for(history):
        digest.update(as_bytes(asked) + b"\n")
    return digest.hexdigest()


def main(*options: str) -> None:
    locale.setlocale(locale.LC_ALL, "")
    if "gc=off" in options:
        gc.disable()
    if "gc=1" in options:
        gc.set_threshold(1)
    where = f"{time.localtime(1_790_000_000).tm_hour:02} h, {locale.format_string('%.1f', 1.5)}, O{sys.flags.optimize}"
    print(f"# Python {sys.version_info[0]}.{sys.version_info[1]}, {where}, gc {gc.isenabled()}")
    for path in golden():
        print(name_of(path), fingerprint(load(path)))


if __name__ == "__main__":
    main(*sys.argv[1:])
