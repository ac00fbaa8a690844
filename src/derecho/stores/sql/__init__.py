"""SQL by name: every statement is written by hand in a `.sql` file, where it can be read, explained and pasted.

A statement begins with its signature and a comment and ends at the next signature:

    -- name: find_run(workflow_id)
    -- The newest run of a workflow id.
    SELECT * FROM runs WHERE workflow_id = :workflow_id ORDER BY number DESC LIMIT 1;

Programs call it with a tuple in the order of the signature, which may go on over several lines of comment;
`:workflow_id` becomes `?1`, or `$1` for PostgreSQL.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

_HERE = Path(__file__).parent
_SIGNATURE = re.compile(r"^-- name: (\w+)\(([\w,\s-]*)\)$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<![:\w]):(\w+)")
_COMMENT = re.compile(r"--.*$", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")


class Migration(NamedTuple):
    """One step of the schema; steps are numbered 1, 2, 3 … and never edited once released."""

    number: int
    name: str
    sql: str


@cache  # a store is made as often as a short-lived client is
def load(name: str, mark: str = "?") -> Mapping[str, str]:
    """The statements of one file, such as "sqlite/runs", by name; `mark` is how the database writes parameter 1."""
    pieces = _SIGNATURE.split((_HERE / f"{name}.sql").read_text(encoding="utf-8"))[1:]
    found: dict[str, str] = {}
    for statement, signature, text in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        parameters = re.findall(r"\w+", signature)
        sql = _COMMENT.sub("", text).strip()
        if set(_PARAMETER.findall(sql)) != set(parameters):
            raise ValueError(f"{name}.sql: the signature of {statement} and its parameters differ")
        for number, parameter in enumerate(parameters, start=1):
            sql = re.sub(rf"(?<![:\w]):{parameter}\b", f"{mark}{number}", sql)
        found[statement] = sql
    return MappingProxyType(found)


def migrations(folder: str) -> list[Migration]:
    """The steps in a folder's `NNNN_name.sql` files, in order."""
    steps = [
        Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted((_HERE / folder).iterdir())
        if (match := _MIGRATION.fullmatch(path.name))
    ]
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise ValueError(f"the migrations of {folder} are not numbered 1, 2, 3 …")
    return steps
