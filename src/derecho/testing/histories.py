"""What must hold of every recorded history, whatever went wrong while it was made."""

from derecho.history import History

_OUTCOMES = {
    "activity_completed": "activity",
    "activity_failed": "activity",
    "activity_timed_out": "activity",
    "activity_cancelled": "activity",
    "timer_fired": "timer",
    "step_completed": "step",
    "step_failed": "step",
    "child_completed": "child",
    "child_failed": "child",
    "child_cancelled": "child",
    "child_terminated": "child",
    "child_refused": "child",
}
_TERMINAL = {
    "workflow_completed",
    "workflow_failed",
    "workflow_cancelled",
    "workflow_terminated",
    "workflow_continued_as_new",
}


def check_history(history: History) -> None:
    """Raise AssertionError unless it begins with its start, ends at most once and last, and has one outcome each."""
    events = list(history)
    where = f"history of run {history.run_id} of workflow {history.workflow_id!r}"
    if [event["id"] for event in events] != list(range(1, len(events) + 1)):
        raise AssertionError(f"{where}: its event ids are not 1, 2, 3 …")
    ended: dict[tuple[str, int], int] = {}
    for event in events:
        kind = event["type"]
        if (kind == "workflow_started") != (event["id"] == 1) and len(events) > 1:  # or terminated before it began
            raise AssertionError(f"{where}: event {event['id']} is {kind}")
        if kind in _TERMINAL and event["id"] != len(events):
            raise AssertionError(f"{where}: {kind} is event {event['id']} of {len(events)}")
        if kind in _OUTCOMES:
            command = _OUTCOMES[kind], event[_OUTCOMES[kind]]
            if command in ended:
                raise AssertionError(
                    f"{where}: {command[0]} {command[1]} has two outcomes, events {ended[command]} and {event['id']}"
                )
            ended[command] = event["id"]
