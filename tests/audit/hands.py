"""Writing into a store's tables by hand, as nobody should: the same few verbs for every store."""

import sqlite3
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from derecho import MemoryStore
from tests.support.schemas import Janitor

_LIVE = {"tasks", "events", "digest", "inbox_last", "inbox_read", "ready_at", "claim", "worker", "crashes"}
_LIVE |= {"blocked_reason", "blocked_count", "terminate"}
_NUMBER = {"history": "task", "inbox": "number", "activities": "activity", "timers": "timer"}


class Hand(Protocol):
    def delete(self, table: str, run_id: str, number: int | None = None) -> None:
        """Remove a run's rows, or the one of that number."""

    def change(self, table: str, run_id: str, number: int | None = None, /, **fields: Any) -> None: ...

    def copy(self, table: str, run_id: str, number: int | None, /, **fields: Any) -> None:
        """Add a copy of a row that differs in some fields."""

    def numbers(self, table: str, run_id: str) -> list[int]: ...

    def field(self, run_id: str, name: str) -> Any:
        """A field of a run's row."""

    def add_key(self, chain_id: str, key: str) -> None: ...


class MemoryHand:
    def __init__(self, store: MemoryStore) -> None:
        self.tables = store._tables

    def _table(self, table: str, run_id: str) -> dict[int, Any]:
        found: dict[int, Any] = getattr(self.tables, table).setdefault(run_id, {})
        return found

    def delete(self, table: str, run_id: str, number: int | None = None) -> None:
        if number is None:
            del getattr(self.tables, table)[run_id]
        else:
            del self._table(table, run_id)[number]

    def change(self, table: str, run_id: str, number: int | None = None, /, **fields: Any) -> None:
        if table == "runs":
            self.tables.runs[run_id] = replace(self.tables.runs[run_id], **fields)
            return
        rows = self._table(table, run_id)
        for key in list(rows) if number is None else [number]:
            rows[key] = fields["data"] if table == "inbox" else replace(rows[key], **fields)

    def copy(self, table: str, run_id: str, number: int | None, /, **fields: Any) -> None:
        to = fields.get("run_id", run_id)
        if table == "runs":
            self.tables.runs[to] = replace(self.tables.runs[run_id], **fields)
            return
        assert number is not None
        row, key = self._table(table, run_id)[number], fields.get(_NUMBER[table], number)
        kept = {name: value for name, value in fields.items() if hasattr(row, name)}  # of a row that is a struct
        self._table(table, to)[key] = fields.get("data", row) if table == "inbox" else replace(row, **kept)

    def numbers(self, table: str, run_id: str) -> list[int]:
        return sorted(self._table(table, run_id))

    def field(self, run_id: str, name: str) -> Any:
        return getattr(self.tables.runs[run_id], name)

    def add_key(self, chain_id: str, key: str) -> None:
        self.tables.keys.setdefault(chain_id, {})[key] = None


class SQLHand:
    """`execute` takes a statement whose values are written into it."""

    runs = "runs"

    def execute(self, sql: str) -> list[Any]:
        raise NotImplementedError

    def columns(self, table: str) -> list[str]:
        raise NotImplementedError

    def delete(self, table: str, run_id: str, number: int | None = None) -> None:
        self.execute(f"DELETE FROM {table} WHERE {self._where(table, run_id, number)}")

    def _where(self, table: str, run_id: str, number: int | None) -> str:
        at = "" if number is None or table not in _NUMBER else f" AND {_NUMBER[table]} = {number}"
        return f"run_id = {literal(run_id)}{at}"

    def change(self, table: str, run_id: str, number: int | None = None, /, **fields: Any) -> None:
        values = ", ".join(f"{name} = {literal(value)}" for name, value in fields.items())
        if values:
            self.execute(f"UPDATE {table} SET {values} WHERE {self._where(table, run_id, number)}")

    def copy(self, table: str, run_id: str, number: int | None, /, **fields: Any) -> None:
        columns = self.columns(table)
        values = ", ".join(literal(fields[name]) if name in fields else name for name in columns)
        source = f"SELECT {values} FROM {table} WHERE {self._where(table, run_id, number)}"
        self.execute(f"INSERT INTO {table} ({', '.join(columns)}) {source}")

    def numbers(self, table: str, run_id: str) -> list[int]:
        sql = f"SELECT {_NUMBER[table]} FROM {table} WHERE {self._where(table, run_id, None)} ORDER BY 1"
        return [row[0] for row in self.execute(sql)]

    def field(self, run_id: str, name: str) -> Any:
        return self.execute(f"SELECT {name} FROM {self.runs} WHERE run_id = {literal(run_id)}")[0][0]

    def add_key(self, chain_id: str, key: str) -> None:
        self.execute(f"INSERT INTO message_keys (chain_id, key) VALUES ({literal(chain_id)}, {literal(key)})")


class SQLiteHand(SQLHand):
    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.execute("PRAGMA ignore_check_constraints = ON")
        self.execute("DROP INDEX one_open_run")
        self.execute("DROP INDEX runs_of_workflow")

    def execute(self, sql: str) -> list[Any]:
        return self.database.execute(sql).fetchall()

    def columns(self, table: str) -> list[str]:
        return [row[1] for row in self.execute(f"PRAGMA table_info({table})")]


class PostgresHand(SQLHand):
    """Runs are two tables there: what is about an open run just now is in `live`."""

    runs = "run_rows"

    def __init__(self, janitor: Janitor, schema: str) -> None:
        self.janitor = janitor
        self.schema = schema
        janitor.execute(f"SET search_path = {schema}; DROP INDEX one_open_run; DROP INDEX runs_of_workflow")
        janitor.execute("ALTER TABLE runs DROP CONSTRAINT runs_check; ALTER TABLE live DROP CONSTRAINT live_check")

    def execute(self, sql: str) -> list[Any]:
        found: list[Any] = self.janitor.fetch(sql)
        return found

    def columns(self, table: str) -> list[str]:
        sql = "SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2"
        return [row[0] for row in self.janitor.fetch(sql, self.schema, table)]

    def delete(self, table: str, run_id: str, number: int | None = None) -> None:
        super().delete(table, run_id, number)
        if table == "runs":
            super().delete("live", run_id)

    def change(self, table: str, run_id: str, number: int | None = None, /, **fields: Any) -> None:
        if table == "runs":
            super().change("live", run_id, **{name: value for name, value in fields.items() if name in _LIVE})
            fields = {name: value for name, value in fields.items() if name not in _LIVE}
        super().change(table, run_id, number, **fields)

    def copy(self, table: str, run_id: str, number: int | None, /, **fields: Any) -> None:
        super().copy(table, run_id, number, **fields)
        if table == "runs":
            super().copy("live", run_id, number, **fields)


def literal(value: Any) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
