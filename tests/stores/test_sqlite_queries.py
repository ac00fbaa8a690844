"""Every statement finds its rows by an index: a table may grow to millions of rows and nothing gets slower."""

import re
import sqlite3
from collections.abc import Iterator

import pytest

from derecho.stores import sql
from derecho.stores.sqlite.connection import open_writer

STATEMENTS = {
    f"{file}.{name}": text
    for file in ("runs", "tasks", "work", "reads")
    for name, text in sql.load(f"sqlite/{file}").items()
}
SMALL = {"workers", "meta", "served", "known", "type", "wanted", "place", "due", "next"}
"""Live engines, two rows, the JSON arrays that a caller hands over, and subqueries with a limit of their own: reading
all of these is right."""

FIRST_OF_ALL = {
    "work.lost_activities": "lost_activities",
    "work.doomed_runs": "doomed_runs",
    "reads.list_runs": "runs_by_start",
}
"""Statements that read the first rows of an index, in its order, and stop at their limit."""

SORTED = {
    "work.ready_runs": "at most `limit` rows of each type",
    "work.suspect_runs": "at most `limit` rows of each type",
    "work.due_activities": "at most `limit` rows of each queue and name",
    "reads.list_of_workflow": "the runs of one workflow id",
    "reads.children": "the open children of one run",
    "reads.live_workers": "",
    "work.all_workers": "a few live engines",
    "reads.closed": "the order of the request",
    "reads.attempts": "the order of the request",
}
"""Statements that sort, with what they sort."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    connection = open_writer(str(tmp_path_factory.mktemp("plans") / "derecho.db"), "normal", create=True)
    yield connection
    connection.close()


def plan(database: sqlite3.Connection, text: str) -> list[str]:
    parameters = len(set(re.findall(r"\?(\d+)", text)))
    return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {text}", (None,) * parameters)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_table_is_read_from_end_to_end(name: str, database: sqlite3.Connection) -> None:
    for step in plan(database, STATEMENTS[name]):
        if step.startswith("SCAN") and step.split()[1] not in {*SMALL, "CONSTANT"}:
            index = FIRST_OF_ALL.get(name)
            assert index is not None, f"{name}: {step}"
            assert f"INDEX {index}" in step, f"{name}: {step}"


@pytest.mark.parametrize("name", STATEMENTS)
def test_only_what_is_small_is_sorted(name: str, database: sqlite3.Connection) -> None:
    sorts = any("TEMP B-TREE" in step for step in plan(database, STATEMENTS[name]))
    assert not sorts or name in SORTED


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("runs.advance", "sqlite_autoindex_runs_1"),
        ("runs.close", "sqlite_autoindex_runs_1"),
        ("runs.newest", "runs_of_workflow"),
        ("runs.target_of_workflow", "runs_of_workflow"),
        ("work.ready_runs", "ready_runs"),
        ("work.suspect_runs", "suspect_runs"),
        ("work.doomed_runs", "doomed_runs"),
        ("work.due_activities", "due_activities"),
        ("work.first_timers", "timers_by_instant"),
        ("work.first_timeouts", "activity_timeouts"),
        ("tasks.finish_activity", "sqlite_autoindex_activities_1"),
        ("tasks.free_runs", "held_runs"),
        ("tasks.lose_activities", "held_activities"),
        ("tasks.hand_back_activities", "held_activities"),
        ("reads.load", "sqlite_autoindex_history_1"),
        ("reads.children", "open_children"),
        ("reads.list_by_type", "runs_by_type"),
        ("reads.list_by_status", "runs_by_status"),
        ("reads.list_of_workflow", "runs_of_workflow"),
    ],
)
def test_a_hot_statement_uses_the_index_made_for_it(name: str, index: str, database: sqlite3.Connection) -> None:
    assert any(f"INDEX {index}" in step for step in plan(database, STATEMENTS[name])), plan(database, STATEMENTS[name])


def test_the_lists_of_exceptions_name_statements() -> None:
    assert FIRST_OF_ALL.keys() | SORTED.keys() <= STATEMENTS.keys()
