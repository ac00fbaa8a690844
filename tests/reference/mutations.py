"""Every way to spoil one command of a history, and the place at which replay must notice it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from derecho import History
from derecho.history import RecordedTask
from derecho.journal import events as ev
from derecho.journal.wire import decode_events

Events = list[dict[str, Any]]

NAMES = {
    "activity_scheduled": "name",
    "step_scheduled": "name",
    "child_scheduled": "workflow_type",
    "signal_sent": "name",
    "workflow_continued_as_new": "workflow_type",
}
TARGETS = {
    "activity_cancel_requested": "activity",
    "timer_cancelled": "timer",
    "child_cancel_requested": "child",
    "child_scheduled": "workflow_id",
    "signal_sent": "workflow_id",
    "timer_scheduled": "duration",
}
OTHER_TYPE: dict[str, Any] = {"type": "activity_scheduled", "name": "stranger"}
OTHER_FOR_ACTIVITIES: dict[str, Any] = {"type": "step_scheduled"}


@dataclass(frozen=True)
class Mutation:
    """`how` one command was spoiled; replay must stop in workflow task `task`, at event `event` of the spoiled history.

    `event` is 0 when the history has ended there: the code asks for more.
    """

    how: str
    kind: str
    history: History
    task: int
    event: int


def mutations(history: History) -> Iterator[Mutation]:
    for number, task in enumerate(history.tasks):
        first = next((n for n, event in enumerate(task.events) if event["type"] == "workflow_task_completed"), None)
        if first is None:
            continue
        for place in range(first + 1, len(task.events)):
            if task.events[place]["type"] == "patch_marked":
                yield from _of_marker(history, number, place)
            else:
                yield from _of_one(history, number, place, first + 1)


def _of_marker(history: History, number: int, place: int) -> Iterator[Mutation]:
    """Without its marker, code takes the old way, and does not ask for what stands behind the marker."""
    task = history.tasks[number]
    before, behind = task.events[:place], task.events[place + 1 :]
    ways = {"drop": [*before, *behind], "rename": [*before, {**task.events[place], "change": "other"}, *behind]}
    for how, mutated in ways.items():
        tasks = list(history.tasks)
        tasks[number] = msgspec.structs.replace(task, events=mutated)
        spoiled = History(history.workflow_id, history.run_id, history.workflow_type, tasks)
        yield Mutation(how, "patch_marked", spoiled, task.task, task.first_event + place + (how == "rename"))


def _of_one(history: History, number: int, place: int, first: int) -> Iterator[Mutation]:
    task = history.tasks[number]
    events, event = task.events, task.events[place]
    before, behind = events[:place], events[place + 1 :]

    def made(how: str, mutated: Events, next_task: Events | None = None) -> Mutation | None:
        tasks = list(history.tasks)
        tasks[number] = msgspec.structs.replace(task, events=mutated)
        if next_task is not None:
            tasks[number + 1] = msgspec.structs.replace(tasks[number + 1], events=next_task)
        at = _first_difference(task, mutated, first)
        if at is None:
            return None  # the same to replay: two equal commands swapped
        spoiled = History(history.workflow_id, history.run_id, history.workflow_type, tasks)
        return Mutation(how, event["type"], spoiled, task.task, at)

    candidates = [
        made("drop", [*before, *behind]),
        made("double", [*before, event, event, *behind]),
        made("swap", [*before, behind[0], event, *behind[1:]]) if behind else None,
        made("retype", [*before, _retyped(event), *behind]),
    ]
    if event["type"] in NAMES:
        candidates.append(made("rename", [*before, {**event, NAMES[event["type"]]: "stranger"}, *behind]))
    if event["type"] in TARGETS:
        field = TARGETS[event["type"]]
        candidates.append(made("retarget", [*before, {**event, field: _other(event[field])}, *behind]))
    if number + 1 < len(history.tasks):
        later = history.tasks[number + 1].events
        boundary = next((n for n, e in enumerate(later) if e["type"] == "workflow_task_completed"), None)
        if boundary is not None:
            moved = [*later[: boundary + 1], event, *later[boundary + 1 :]]
            candidates.append(made("move", [*before, *behind], moved))
    yield from (candidate for candidate in candidates if candidate is not None)


def _other(value: Any) -> Any:
    """Another id, or a duration of another order of magnitude."""
    if isinstance(value, str):
        return f"not {value}"
    return 90_000_000 if value >= 3_600_000_000 else value + 400_000_000_000


def _retyped(event: dict[str, Any]) -> dict[str, Any]:
    if event["type"] == "activity_scheduled":
        return {**OTHER_FOR_ACTIVITIES, "name": event["name"]}
    return OTHER_TYPE


def _first_difference(task: RecordedTask, mutated: Events, first: int) -> int | None:
    """The event of the spoiled task that is no longer what the code asks for; 0 behind its end, None for none.

    Patch markers do not count: the code asks for those that it knows and passes over the others.
    """
    wanted = [_identity(event) for event in task.events[first:] if event["type"] != "patch_marked"]
    there = [(n, _identity(event)) for n, event in enumerate(mutated) if n >= first and event["type"] != "patch_marked"]
    for n, identity in enumerate(wanted):
        if n >= len(there):
            return 0
        if there[n][1] != identity:
            return task.first_event + there[n][0]
    return task.first_event + there[len(wanted)][0] if len(there) > len(wanted) else None


def _identity(event: dict[str, Any]) -> tuple[Any, ...]:
    return _identity_of(msgspec.json.encode([event]).decode())


@cache
def _identity_of(data: str) -> tuple[Any, ...]:
    [command] = decode_events(data)
    if not isinstance(command, ev.Command):
        raise TypeError(f"{ev.kind(command)} is no command")
    return ev.kind(command), *command.identity()
