"""A history goes out as JSON Lines and comes back with the same rows; a bad file is refused by its line."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derecho import History, PayloadError
from derecho.journal import events as ev
from derecho.journal.failures import Failure
from derecho.journal.payloads import Payload
from derecho.journal.policies import RetryRule
from derecho.journal.wire import HistoryRow, chain, encode_events

AT = 1_700_000_000_000_001
ONE = Payload(encoding="reversed", data=b"\x00\xff")
FAILURE = Failure("builtins:ValueError", "no\nnewline", args=["a", None], notes=["n"], cause=Failure("x:Y", "deep"))

EVENTS: list[list[ev.AnyEvent]] = [
    [
        ev.WorkflowStarted("ship", "order-1 ☃", "run-1", AT - 5, (ONE,), trace={"traceparent": "00-1"}),
        ev.SignalReceived("go", ONE, AT - 4, key="k"),
        ev.WorkflowTaskCompleted(AT, "worker-1"),
        ev.ActivityScheduled("charge", (ONE,), retry=RetryRule(attempts=3), heartbeat=5, source="app.py:3"),
        ev.TimerScheduled(60_000_000, AT + 60_000_000, "app.py:4", "courier"),
        ev.SideEffectRecorded(ONE),
        ev.StepScheduled("label"),
        ev.PatchMarked("v2"),
    ],
    [
        ev.ActivityFailed(4, FAILURE, AT + 1, attempt=3, started_at=AT),
        ev.TimerFired(5, AT + 2),
        ev.StepCompleted(7, ONE, AT + 3),
        ev.WorkflowTaskCompleted(AT + 4),
        ev.ActivityCancelRequested(4),
        ev.WorkflowFailed(FAILURE, unread=1),
    ],
]


def rows_of(tasks: list[list[ev.AnyEvent]], at: int = AT) -> list[HistoryRow]:
    rows, digest, first = [], "", 1
    for number, events in enumerate(tasks, 1):
        boundary = next(event for event in events if isinstance(event, ev.WorkflowTaskCompleted))
        data = encode_events(events)
        digest = chain(digest, number, boundary.at, data)
        rows.append(HistoryRow(number, first, boundary.at, data, digest))
        first += len(events)
    return rows


ROWS = rows_of(EVENTS)
HISTORY = History.from_rows("order-1 ☃", "run-1", "ship", ROWS)


def test_export_and_import_give_the_same_rows_and_the_same_text() -> None:
    text = HISTORY.dumps()
    back = History.loads(text)
    assert back.to_rows() == ROWS
    assert back.dumps() == text
    assert (back.workflow_id, back.run_id, back.workflow_type) == ("order-1 ☃", "run-1", "ship")


def test_a_run_that_was_terminated_from_outside_comes_back_too() -> None:
    data = encode_events([ev.WorkflowTerminated("enough", AT + 9)])
    rows = [*ROWS, HistoryRow(3, 15, AT + 9, data, chain(ROWS[-1].digest, 3, AT + 9, data))]
    assert History.loads(History.from_rows("w", "r", "t", rows).dumps()).to_rows() == rows


@settings(max_examples=40)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x), max_leaves=8))
def test_whatever_a_payload_holds_the_rows_stay_equal(value: Any) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    task: list[ev.AnyEvent] = [ev.SignalReceived("s", Payload(raw), AT), ev.WorkflowTaskCompleted(AT)]  # type: ignore[arg-type]  # Raw takes bytes
    rows = rows_of([task])
    assert History.loads(History.from_rows("w", "r", "t", rows).dumps()).to_rows() == rows


def test_each_line_says_which_event_when_and_in_which_task() -> None:
    header, first, *_, last = HISTORY.dumps().splitlines()
    assert json.loads(header) == {
        "format": 1,
        "workflow_id": "order-1 ☃",
        "run_id": "run-1",
        "workflow_type": "ship",
    }
    assert list(json.loads(first).items())[:4] == [
        ("id", 1),
        ("type", "workflow_started"),
        ("at", "2023-11-14T22:13:19.999996Z"),
        ("task", 1),
    ]
    assert json.loads(last)["id"] == len(HISTORY) == 14


def test_fields_of_a_newer_writer_are_kept() -> None:
    lines = HISTORY.dumps().splitlines()
    lines[2] = json.dumps({**json.loads(lines[2]), "mood": "good"}, ensure_ascii=False, separators=(",", ":"))
    text = "\n".join(lines) + "\n"
    assert json.loads(History.loads(text).dumps().splitlines()[2])["mood"] == "good"


def edit(line: int, **change: Any) -> Callable[[list[str]], list[str]]:
    def make(lines: list[str]) -> list[str]:
        fields = {**json.loads(lines[line]), **change}
        fields = {key: value for key, value in fields.items() if value is not None}
        return [*lines[:line], json.dumps(fields), *lines[line + 1 :]]

    return make


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda lines: [], "this is no history: it is empty"),
        (lambda lines: ["", " "], "this is no history: it is empty"),
        (lambda lines: ["hello"], "line 1 of a history is no JSON: "),
        (lambda lines: ["[]"], "line 1 of a history is no JSON object"),
        (lambda lines: lines[1:], "line 1 has no `format` and `run_id`"),
        (edit(0, format="1"), "line 1 has no `format`"),
        (edit(0, format=99), "format 99, and this version of Derecho reads up to 1"),
        (lambda lines: [*lines[:4], "{", *lines[5:]], "line 5 of a history is no JSON: "),
        (lambda lines: [*lines[:4], "7", *lines[5:]], "line 5 of a history is no JSON object"),
        (edit(3, id=None), "line 4 of a history has no `id`"),
        (edit(3, type=None), "line 4 of a history has no `type`"),
        (edit(3, at=None), "line 4 of a history has no `at`"),
        (edit(3, task=None), "line 4 of a history has no `task`"),
        (edit(3, id=7), "line 4 of a history is event 7, expected 3"),
        (edit(3, at="yesterday"), "line 4 of a history has a bad `at`"),
        (edit(3, at="2024-01-01T00:00:00"), "line 4 of a history has a bad `at`.*no time zone"),
        (edit(3, at=[1]), "line 4 of a history has a bad `at`"),
        (lambda lines: [*lines[:5], *lines[6:]], "line 6 of a history is event 6, expected 5"),
        (lambda lines: ["", *lines[:2], "", "oops"], "line 5 of a history is no JSON: "),
        (edit(1, task=2), "line 2 of a history is of task 2, expected 1"),
        (edit(9, task=3), "line 10 of a history is of task 3, expected 2"),
    ],
)
def test_a_bad_file_is_refused_by_its_line(spoil: Callable[[list[str]], list[str]], message: str) -> None:
    text = "\n".join(spoil(HISTORY.dumps().splitlines()))
    with pytest.raises(PayloadError, match=message):
        History.loads(text)


def read(text: str) -> None:
    for task in History.loads(text).tasks:
        task.decode()


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (1, {"type": ["list"]}),
        (1, {"type": "no_such_event"}),
        (2, {"id": "2"}),
        (3, {"task": "one"}),
        (9, {"task": 5}),
        (9, {"task": 0}),
        (4, {"name": 5}),
        (1, {"input": "text"}),
    ],
)
def test_a_file_with_wrong_types_is_a_payload_error_at_the_latest_when_it_is_read(
    line: int, change: dict[str, Any]
) -> None:
    text = "\n".join(edit(line, **change)(HISTORY.dumps().splitlines()))
    with pytest.raises(PayloadError, match=r"line|recorded workflow task"):
        read(text)
