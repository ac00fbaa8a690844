"""The history of one run as a value: JSON Lines in and out.

The same format everywhere (API, replay tests, CLI, UI): a header line, then one object per event with `id`, `type`,
`at` (ISO 8601 UTC: when a fact happened, or when the task that asked for a command ran), `task` (the workflow task that
recorded it) and its own fields. Fields of newer writers are kept.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, get_args

import msgspec

from derecho.clock import from_datetime, to_datetime
from derecho.errors import PayloadError
from derecho.journal.events import AnyEvent
from derecho.journal.wire import FORMAT, HistoryRow, chain, decode_events

_ORDER = ("id", "type", "at", "task")
_BOUNDARIES = {"workflow_task_completed", "workflow_terminated"}
_FIELDS = {cls.__struct_config__.tag: cls.__struct_fields__ for cls in get_args(AnyEvent)}


class RecordedTask(msgspec.Struct, frozen=True, gc=False):
    """One workflow task: `events` are positions in the history from `first_event` on, all recorded at `at`."""

    task: int
    first_event: int
    at: int
    events: list[dict[str, Any]]

    def decode(self) -> list[AnyEvent]:
        return decode_events(msgspec.json.encode(self.events).decode())


class History:
    """The events of one run, in order; grouped by the workflow task that recorded them."""

    def __init__(self, workflow_id: str, run_id: str, workflow_type: str, tasks: Sequence[RecordedTask]) -> None:
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.workflow_type = workflow_type
        self.tasks = list(tasks)

    @classmethod
    def from_rows(cls, workflow_id: str, run_id: str, workflow_type: str, rows: Sequence[HistoryRow]) -> "History":
        tasks = [RecordedTask(row.task, row.first_event, row.at, msgspec.json.decode(row.data)) for row in rows]
        return cls(workflow_id, run_id, workflow_type, tasks)

    def to_rows(self) -> list[HistoryRow]:
        """The rows as a store holds them, with their digests."""
        rows, digest = [], ""
        for task in self.tasks:
            data = msgspec.json.encode(task.events).decode()
            digest = chain(digest, task.task, task.at, data)
            rows.append(HistoryRow(task.task, task.first_event, task.at, data, digest))
        return rows

    def __len__(self) -> int:
        return sum(len(task.events) for task in self.tasks)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each event as in the export: `id`, `type`, `at`, `task` and its own fields."""
        for task in self.tasks:
            for event_id, event in enumerate(task.events, task.first_event):
                at = to_datetime(event.get("at", task.at)).isoformat().replace("+00:00", "Z")
                fields = {key: value for key, value in event.items() if key not in ("type", "at")}
                yield {"id": event_id, "type": event["type"], "at": at, "task": task.task, **fields}

    def dumps(self) -> str:
        """JSON Lines: the header, then one line per event."""
        header = {
            "format": FORMAT,
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "workflow_type": self.workflow_type,
        }
        return "".join(msgspec.json.encode(line).decode() + "\n" for line in (header, *self))

    @classmethod
    def loads(cls, text: str) -> "History":
        """Read an export; raises PayloadError that names the line."""
        # splitlines() also splits at U+2028, which may stand in a payload.
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if not lines:
            raise PayloadError("this is no history: it is empty")
        header = _line(lines[0][1], lines[0][0])
        version = header.get("format")
        if not isinstance(version, int) or "run_id" not in header:
            raise PayloadError(f"this is no history: line {lines[0][0]} has no `format` and `run_id`")
        if version > FORMAT:
            raise PayloadError(f"this history has format {version}, and this version of Derecho reads up to {FORMAT}")
        tasks: list[RecordedTask] = []
        for number, line in lines[1:]:
            event = _line(line, number)
            missing = [name for name in _ORDER if name not in event]
            if missing:
                raise PayloadError(f"line {number} of a history has no `{missing[0]}`")
            expected = 1 if not tasks else tasks[-1].first_event + len(tasks[-1].events)
            if event["id"] != expected:
                raise PayloadError(f"line {number} of a history is event {event['id']}, expected {expected}")
            task = tasks[-1].task if tasks else 0
            if event["task"] not in ((task, task + 1) if tasks else (1,)):
                raise PayloadError(f"line {number} of a history is of task {event['task']}, expected {task + 1}")
            if not isinstance(event["type"], str):
                raise PayloadError(f"line {number} of a history has a `type` that is no text")
            at = _instant(event["at"], number)
            if not tasks or tasks[-1].task != event["task"]:
                tasks.append(RecordedTask(event["task"], event["id"], at, []))
            if event["type"] in _BOUNDARIES:
                tasks[-1] = msgspec.structs.replace(tasks[-1], at=at)
            tasks[-1].events.append(_as_recorded(event, at))
        return cls(header.get("workflow_id", ""), header["run_id"], header.get("workflow_type", ""), tasks)


def _as_recorded(event: dict[str, Any], at: int) -> dict[str, Any]:
    """The event as the journal writes it: its fields in order, with `at` among them if it is a fact."""
    fields = {key: value for key, value in event.items() if key not in _ORDER}
    order = _FIELDS.get(event["type"], ("at",))
    if "at" in order:
        fields["at"] = at
    known = {key: fields[key] for key in order if key in fields}
    return {"type": event["type"], **known, **fields}


def _line(text: str, number: int) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise PayloadError(f"line {number} of a history is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise PayloadError(f"line {number} of a history is no JSON object")
    return value


def _instant(text: Any, number: int) -> int:
    try:
        return from_datetime(msgspec.convert(text, type=datetime))
    except (msgspec.ValidationError, ValueError) as exc:
        raise PayloadError(f"line {number} of a history has a bad `at`: {exc}") from exc
