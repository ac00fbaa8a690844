"""The shop's SQLite file: every call with its key, begin and end, and every effect that a call had.

Both tables only grow, and nothing in the schema forbids a second effect for one key: if the shop ever did something
twice, it would stand here. Threads of one process write, anyone may read at the same time.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, operation TEXT NOT NULL, began_at REAL NOT NULL,
    ended_at REAL, status INTEGER, repeat INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS effects (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, operation TEXT NOT NULL, order_id TEXT NOT NULL, at REAL NOT NULL,
    status INTEGER NOT NULL, answer TEXT NOT NULL, details TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS calls_by_key ON calls (key);
CREATE INDEX IF NOT EXISTS effects_by_key ON effects (key);
CREATE TABLE IF NOT EXISTS stock (article TEXT PRIMARY KEY, pieces INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Call:
    """One request that came in. `ended_at` is None while it is worked on; `repeat`: its key had an answer already."""

    key: str
    operation: str
    began_at: float
    ended_at: float | None
    status: int | None
    repeat: bool


@dataclass(frozen=True)
class Effect:
    """What a call did, or its refusal for good (`status` 4xx): the answer to its key from then on."""

    key: str
    operation: str
    order_id: str
    at: float
    status: int
    answer: dict[str, Any]
    details: dict[str, Any]

    @property
    def done(self) -> bool:
        return self.status == 200


class Ledger:
    def __init__(self, path: Path, shelf: dict[str, int]) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(SCHEMA)
        self._db.executemany("INSERT OR IGNORE INTO stock VALUES (?, ?)", shelf.items())

    def close(self) -> None:
        self._db.close()

    def begin(self, key: str, operation: str) -> tuple[int, int]:
        """Record that a call came in: its id, and how many came before it with this key."""
        with self.transaction():
            (earlier,) = self._db.execute("SELECT count(*) FROM calls WHERE key = ?", (key,)).fetchone()
            row = (key, operation, time.time())
            cursor = self._db.execute("INSERT INTO calls (key, operation, began_at) VALUES (?, ?, ?)", row)
        return cursor.lastrowid or 0, earlier

    def end(self, call: int, status: int, *, repeat: bool) -> None:
        with self.transaction():
            row = (time.time(), status, repeat, call)
            self._db.execute("UPDATE calls SET ended_at = ?, status = ?, repeat = ? WHERE id = ?", row)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One writer at a time, all or nothing."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # --- inside a transaction ---------------------------------------------------------------------------------------

    def answered(self, key: str) -> Effect | None:
        """The first effect of a key."""
        row = self._db.execute(f"{SELECT_EFFECTS} WHERE key = ? ORDER BY id", (key,)).fetchone()
        return _effect(row) if row else None

    def find(self, operation: str, answer_id: str) -> Effect | None:
        """The effect that was answered with this id, such as the payment that is to be refunded."""
        where = "WHERE operation = ? AND json_extract(answer, '$.id') = ?"
        row = self._db.execute(f"{SELECT_EFFECTS} {where}", (operation, answer_id)).fetchone()
        return _effect(row) if row else None

    def next_id(self, prefix: str) -> str:
        (last,) = self._db.execute("SELECT coalesce(max(id), 0) FROM effects").fetchone()
        return f"{prefix}-{last + 1:05}"

    def pieces(self, article: str) -> int:
        row = self._db.execute("SELECT pieces FROM stock WHERE article = ?", (article,)).fetchone()
        return int(row[0]) if row else 0

    def move(self, changes: Iterable[tuple[str, int]]) -> None:
        """Add to the stock, or take from it."""
        self._db.executemany(
            "UPDATE stock SET pieces = pieces + ? WHERE article = ?", [(n, article) for article, n in changes]
        )

    def add(self, effect: Effect) -> None:
        answer, details = json.dumps(effect.answer), json.dumps(effect.details)
        row = (effect.key, effect.operation, effect.order_id, effect.at, effect.status, answer, details)
        columns = "key, operation, order_id, at, status, answer, details"
        self._db.execute(f"INSERT INTO effects ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)


SELECT_EFFECTS = "SELECT key, operation, order_id, at, status, answer, details FROM effects"


def _effect(row: Any) -> Effect:
    key, operation, order_id, at, status, answer, details = row
    return Effect(key, operation, order_id, at, status, json.loads(answer), json.loads(details))


class LedgerReader:
    """The file read from outside, by someone who does not trust the service; also while it is running."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    def close(self) -> None:
        self._db.close()

    def calls(self) -> list[Call]:
        rows = self._db.execute("SELECT key, operation, began_at, ended_at, status, repeat FROM calls ORDER BY id")
        return [Call(key, name, began, ended, status, bool(repeat)) for key, name, began, ended, status, repeat in rows]

    def effects(self) -> list[Effect]:
        return [_effect(row) for row in self._db.execute(f"{SELECT_EFFECTS} ORDER BY id")]

    def stock(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT article, pieces FROM stock"))

    def in_flight(self, since: float) -> int:
        """Calls that began after an instant and are being worked on at this moment."""
        query = "SELECT count(*) FROM calls WHERE ended_at IS NULL AND began_at >= ?"
        return int(self._db.execute(query, (since,)).fetchone()[0])

    def effect_count(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM effects").fetchone()[0])

    def charged(self) -> set[str]:
        """The orders that have been paid for so far."""
        query = "SELECT order_id FROM effects WHERE operation = 'charge' AND status = 200"
        return {order_id for (order_id,) in self._db.execute(query)}

    def counts(self) -> tuple[int, int, int]:
        """Calls so far, those with a key that had been answered before, and those that failed with a 5xx."""
        query = "SELECT count(*), coalesce(sum(repeat), 0), coalesce(sum(status >= 500), 0) FROM calls"
        calls, repeats, failures = self._db.execute(query).fetchone()
        return calls, repeats, failures
