"""Opening the file: settings asked for and read back, the schema brought up to date.

What SQLite did not grant is an error, because it answers a wrong setting with silence: on a network file system a
request for WAL is simply not followed, and two hosts would then damage the file.
"""

import sqlite3
import sys
import time
from pathlib import Path
from typing import Literal

from derecho.errors import StoreError
from derecho.stores.sql import migrations
from derecho.stores.sqlite.errors import code_of

Synchronous = Literal["full", "normal"]

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that writes."""

OLDEST_SQLITE = (3, 37, 0)
"""The first release with STRICT tables."""

_CACHE_KIB = 32 * 1024
_CHECKPOINT_PAGES = 2_000
_WAL_LIMIT = 64 * 1024 * 1024
LEVELS: dict[Synchronous, int] = {"normal": 1, "full": 2}

_MIGRATIONS = migrations("sqlite")


def connect(path: str, *, create: bool) -> sqlite3.Connection:
    """A connection in autocommit mode: transactions begin where the code says BEGIN."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        raise StoreError(f"this Python has SQLite {sqlite3.sqlite_version}; Derecho needs {wanted} or newer")
    return sqlite3.connect(
        f"{Path(path).as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def open_writer(path: str, synchronous: Synchronous, *, create: bool) -> sqlite3.Connection:
    """The one connection of this store that writes and checkpoints."""
    connection = connect(path, create=create)
    try:
        _use_wal(connection, path)
        level = LEVELS[synchronous]
        for pragma in (
            f"synchronous = {level}",
            f"cache_size = -{_CACHE_KIB}",
            f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
            f"journal_size_limit = {_WAL_LIMIT}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if sys.platform == "darwin":  # where fsync alone does not reach the disk
            connection.execute("PRAGMA fullfsync = 1")
            connection.execute("PRAGMA checkpoint_fullfsync = 1")
        granted = _pragma(connection, "synchronous")
        if granted != level:
            raise StoreError(f"database {path}: SQLite set synchronous to {granted!r} instead of {level}")
        migrate(connection, path)
        # A file that may not be written is refused now, not at the first commit. BEGIN alone would not notice.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = value WHERE key = 'now'")
        connection.execute("ROLLBACK")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: str) -> sqlite3.Connection:
    """A connection for reads that may be long. It never writes, and never checkpoints: see `open_writer`."""
    connection = connect(path, create=False)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA query_only = 1")
    return connection


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the schema up to date, one process at a time; refuse one that is newer than this code."""
    newest = len(_MIGRATIONS)
    if _schema(connection) == newest:
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        found = _schema(connection)
        if found > newest:
            raise StoreError(
                f"database {path} has schema {found}, made by a newer release of Derecho; this one knows {newest}: "
                "upgrade it, or open another file"
            )
        for step in _MIGRATIONS[found:]:
            for statement in statements_of(step.sql):
                connection.execute(statement)
            connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (step.number,))
        connection.execute("COMMIT")
    except BaseException as exc:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if code_of(exc) == sqlite3.SQLITE_ERROR and "already exists" in str(exc):
            raise StoreError(f"database {path} belongs to something else: {exc}; choose another file") from exc
        raise


def statements_of(script: str) -> list[str]:
    """The statements of a script; `executescript` would commit the transaction around it."""
    found, begun = [], ""
    for line in script.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    return found


def _schema(connection: sqlite3.Connection) -> int:
    """The number of the newest migration that was applied, 0 for a file without our tables."""
    if connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'").fetchone() is None:
        return 0
    try:
        row = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    except sqlite3.OperationalError:  # a table `meta` of somebody else
        return 0
    return 0 if row is None else int(row[0])


def stored_now(connection: sqlite3.Connection) -> int:
    """The instant of the newest commit."""
    return int(connection.execute("SELECT value FROM meta WHERE key = 'now'").fetchone()[0])


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    """Switch to WAL. SQLite does not wait here while another process does the same, so we do."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT
    while _pragma(connection, "journal_mode") != "wal":
        try:
            connection.execute("PRAGMA journal_mode = wal")
        except sqlite3.OperationalError as exc:
            if code_of(exc) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.005)
            continue
        mode = _pragma(connection, "journal_mode")
        if mode != "wal":
            raise StoreError(
                f"database {path} cannot use a write-ahead log (journal_mode is {mode!r}), which needs shared memory: "
                "put it on a local file system"
            )


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]
