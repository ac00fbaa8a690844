"""Rows of tables as the structs that stores hand out. A test holds the columns to the order of the fields."""

import json
from typing import Any

from derecho.journal.model import ActivityRow, RunRow, WorkerRow

_RUN_END = 1 + len(RunRow.__struct_fields__)
_ACTIVITY_LAST = len(ActivityRow.__struct_fields__)


def run_row(row: tuple[Any, ...]) -> RunRow:
    """A row of `runs`: its own `number`, then the fields of `RunRow`."""
    return RunRow(*row[1:_RUN_END])


def activity_row(row: tuple[Any, ...]) -> ActivityRow:
    """A row of `activities`: its own `lost`, then the fields of `ActivityRow`, the last of them a truth value."""
    fields = [*row[1:_ACTIVITY_LAST], bool(row[_ACTIVITY_LAST])]
    return ActivityRow(*fields)


def worker_row(row: tuple[Any, ...]) -> WorkerRow:
    worker, name, lease_until, serves = row
    return WorkerRow(worker, name, lease_until, json.loads(serves))
