"""SQL lives in files: named, complete, used, and with the columns that the code expects."""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from derecho.journal.model import ActivityRow, RunRow
from derecho.stores import sql
from derecho.stores.sqlite.connection import open_writer, statements_of

FOLDER = Path(sql.__file__).parent
STATEMENT_FILES = sorted(f"sqlite/{path.stem}" for path in (FOLDER / "sqlite").glob("[a-z]*.sql"))
CODE = "\n".join(path.read_text() for path in sorted((FOLDER.parent / "sqlite").glob("*.py")))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where SQL is read from, for a test that writes its own: what was read before and since is forgotten."""
    monkeypatch.setattr(sql, "_HERE", tmp_path)
    sql.load.cache_clear()
    yield tmp_path
    sql.load.cache_clear()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(str(tmp_path / "derecho.db"), "normal", create=True)
    yield connection
    connection.close()


@pytest.mark.parametrize("name", STATEMENT_FILES)
def test_each_statement_is_complete_and_prepares(name: str, database: sqlite3.Connection) -> None:
    statements = sql.load(name)
    assert statements
    for statement, text in statements.items():
        assert sqlite3.complete_statement(text), f"{statement} does not end with a semicolon"
        parameters = len(set(re.findall(r"\?(\d+)", text)))
        database.execute(f"EXPLAIN {text}", (None,) * parameters)


@pytest.mark.parametrize("name", STATEMENT_FILES)
def test_each_statement_is_used(name: str) -> None:
    unused = [statement for statement in sql.load(name) if f'"{statement}"' not in CODE]
    assert not unused


@pytest.mark.parametrize("name", STATEMENT_FILES)
def test_each_statement_can_be_pasted_with_its_names(name: str, database: sqlite3.Connection) -> None:
    text = (FOLDER / f"{name}.sql").read_text()
    for statement in statements_of(text):
        names = set(re.findall(r"(?<![:\w]):(\w+)", re.sub(r"--.*", "", statement)))
        database.execute("EXPLAIN " + re.sub(r"--.*", "", statement), dict.fromkeys(names))


def test_parameters_are_numbered_as_the_signature_has_them(folder: Path) -> None:
    (folder / "some.sql").write_text(
        "-- Comments before.\n-- name: one(b, a,\n--     ab)\n-- With :a in a comment.\n"
        "SELECT :a, :b, :ab, :a, ':', '10:30';\n-- name: two()\nSELECT 2;\n"
    )
    assert sql.load("some") == {"one": "SELECT ?2, ?1, ?3, ?2, ':', '10:30';", "two": "SELECT 2;"}
    assert sql.load("some", mark="$")["one"].startswith("SELECT $2, $1, $3")


@pytest.mark.parametrize("signature", ["one()", "one(a, b)", "one(b)"])
def test_a_signature_that_does_not_fit_is_found_at_once(signature: str, folder: Path) -> None:
    (folder / "some.sql").write_text(f"-- name: {signature}\nSELECT :a;\n")
    with pytest.raises(ValueError, match="the signature of one"):
        sql.load("some")


def test_migrations_are_numbered_without_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [step.number for step in sql.migrations("sqlite")] == [1]
    monkeypatch.setattr(sql, "_HERE", tmp_path)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "0002_second.sql").write_text("SELECT 1;")
    with pytest.raises(ValueError, match="numbered 1, 2, 3"):
        sql.migrations("some")


def test_columns_are_the_fields_of_the_rows_in_order(database: sqlite3.Connection) -> None:
    def columns(table: str) -> list[str]:
        return [row[1] for row in database.execute(f"PRAGMA table_info({table})")]

    assert columns("runs") == ["number", *RunRow.__struct_fields__]
    assert columns("activities") == ["lost", *ActivityRow.__struct_fields__]
    assert ActivityRow.__struct_fields__[-1] == "cancel_requested"


def test_every_table_is_strict(database: sqlite3.Connection) -> None:
    tables = database.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    assert {name for name, strict in tables if not strict} == {"sqlite_schema"}
    assert {name for name, strict in tables if strict} == {
        *("runs", "history", "inbox", "message_keys", "activities", "timers", "workers", "meta")
    }
