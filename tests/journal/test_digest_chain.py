"""A history that was damaged is told from one that was not, whatever the damage."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from derecho import StoreError
from derecho.journal import events as ev
from derecho.journal.model import Head
from derecho.journal.wire import HistoryRow, chain, decode_events, encode_events, verify

Rows = list[HistoryRow]


def written() -> Rows:
    """Four workflow tasks as they are stored."""
    rows: Rows = []
    head = Head()
    for task in range(1, 5):
        events: list[ev.AnyEvent] = [ev.TimerFired(3, task), ev.WorkflowTaskCompleted(task), ev.PatchMarked(f"p{task}")]
        data = encode_events(events)
        digest = chain(head.digest, task, task * 10, data)
        rows.append(HistoryRow(task, head.events + 1, task * 10, data, digest))
        head = Head(task, head.events + len(events), digest)
    return rows


HEAD = written()[-1].digest


def test_what_was_written_passes() -> None:
    verify(written(), head=HEAD)
    verify([], head="")


DAMAGE: list[tuple[str, Callable[[Rows], Rows]]] = [
    ("changed data", lambda rows: [rows[0], replace(rows[1], data=rows[1].data.replace("p2", "q2")), *rows[2:]]),
    ("changed time", lambda rows: [rows[0], replace(rows[1], at=21), *rows[2:]]),
    ("changed digest", lambda rows: [rows[0], replace(rows[1], digest="0" * 32), *rows[2:]]),
    ("first row missing", lambda rows: rows[1:]),
    ("middle row missing", lambda rows: [rows[0], *rows[2:]]),
    ("last row missing", lambda rows: rows[:-1]),
    ("all rows missing", lambda rows: []),
    ("two rows swapped", lambda rows: [rows[0], rows[2], rows[1], rows[3]]),
    ("swapped and renumbered", lambda rows: [rows[0], replace(rows[2], task=2, first_event=4), *rows[2:]]),
    ("a row doubled", lambda rows: [rows[0], rows[0], *rows[1:]]),
    ("a row too many", lambda rows: [*rows, replace(rows[3], task=5, first_event=13)]),
    ("a tail of another time line", lambda rows: [*rows[:3], other_tail(rows)]),
    ("renumbered events", lambda rows: [*rows[:3], replace(rows[3], first_event=11)]),
]


def other_tail(rows: Rows) -> HistoryRow:
    """A fourth task that is valid in itself, but is not the one that the run row knows."""
    data = encode_events([ev.PatchMarked("elsewhere")])
    return HistoryRow(4, 10, 40, data, chain(rows[2].digest, 4, 40, data))


@pytest.mark.parametrize(("name", "damage"), DAMAGE, ids=[name for name, _ in DAMAGE])
def test_damage_is_refused_by_name_of_the_run(name: str, damage: Callable[[Rows], Rows]) -> None:
    with pytest.raises(StoreError, match="history of run run-7 is damaged: "):
        verify(damage(written()), head=HEAD, run_id="run-7")


def test_every_changed_byte_of_a_row_is_noticed() -> None:
    rows = written()
    for position in range(len(rows[1].data)):
        data = rows[1].data
        changed = data[:position] + chr(ord(data[position]) ^ 1) + data[position + 1 :]
        with pytest.raises(StoreError):
            verify([rows[0], replace(rows[1], data=changed), *rows[2:]], head=HEAD)


def test_fields_that_a_newer_writer_added_are_read_over() -> None:
    data = '[{"type":"timer_fired","timer":3,"at":5,"colour":"red"}]'
    assert decode_events(data) == [ev.TimerFired(3, 5)]
