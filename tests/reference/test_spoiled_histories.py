"""A history that differs from its code in one command is always noticed, and at that command. (G28)"""

import re
from collections import Counter

import derecho
from derecho import NondeterminismError
from tests.reference.corpus import golden, load, name_of
from tests.reference.edits import edits
from tests.reference.mutations import mutations
from tests.reference.workflows import REFERENCE

ENOUGH = 5_000
WAYS = {"drop", "double", "swap", "rename", "retarget", "retype", "move"}


def place_of(message: str) -> tuple[int, int]:
    """Workflow task and event that a report of a mismatch names; 0 for what it does not name."""
    task, event = re.search(r"at workflow task (\d+)", message), re.search(r"at event (\d+)", message)
    return int(task[1]) if task else 0, int(event[1]) if event else 0


def test_every_spoiled_command_is_caught_at_its_event() -> None:
    tried: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    missed, misplaced = [], []
    for name, mutation in ((name_of(path), each) for path in golden() for each in mutations(load(path))):
        tried[mutation.how] += 1
        kinds[mutation.kind] += 1
        what = f"{name}: {mutation.how} {mutation.kind} in task {mutation.task}"
        try:
            derecho.replay(REFERENCE[mutation.history.workflow_type], mutation.history)
        except NondeterminismError as exc:
            task, event = place_of(str(exc))
            if event != mutation.event or task not in (0, mutation.task):
                misplaced.append(f"{what}: event {mutation.event}, reported as {event} of task {task}")
        else:
            missed.append(what)
    print(f"{sum(tried.values())} mutations: {dict(tried)}, of {dict(kinds)}")
    assert missed == []
    assert misplaced == []
    assert set(tried) == WAYS
    assert len(kinds) >= 14
    assert sum(tried.values()) >= ENOUGH


def test_a_history_that_is_cut_off_is_no_mismatch() -> None:
    for path in golden()[::7]:
        history = load(path)
        for length in range(len(history.tasks)):
            cut = derecho.History(history.workflow_id, history.run_id, history.workflow_type, history.tasks[:length])
            derecho.replay(REFERENCE[history.workflow_type], cut)


def test_every_edit_of_the_code_is_caught_by_some_history() -> None:
    histories = [load(path) for path in golden()]
    tried, missed = 0, []
    for what, name, edited in edits():
        tried += 1
        for history in histories:
            try:
                if history.workflow_type == name:
                    derecho.replay(edited, history)
            except NondeterminismError:
                break
        else:
            missed.append(f"{what} of {name}")
    print(f"{tried} edits")
    assert missed == []
    assert tried >= 40
