"""SQLite's errors as ours: what happened, where, and what to do."""

import os
import sqlite3
from typing import Literal

from derecho.errors import StoreError, StoreUnavailable

Outcome = Literal["not_applied", "unknown"]

_FOR_NOW = {
    sqlite3.SQLITE_BUSY: (
        "is locked: another process has been writing to it for longer than {patience:g} s; "
        "end that transaction (an open sqlite3 shell, perhaps) and it goes on"
    ),
    sqlite3.SQLITE_LOCKED: "is locked by another connection of this process; end its transaction and it goes on",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space and it goes on, nothing acknowledged is lost",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk, its quota and the system's log",
    sqlite3.SQLITE_READONLY: (
        "may not be written: the file, its directory or the file system is read-only for this user, "
        "or the file was replaced while it was open"
    ),
    sqlite3.SQLITE_NOMEM: "needs more memory than this process may have",
    sqlite3.SQLITE_PROTOCOL: "is opened and closed by too many processes at once",
    sqlite3.SQLITE_INTERRUPT: "was interrupted",
}
"""Codes after which the same call may work later."""

_FOR_GOOD = {
    sqlite3.SQLITE_NOTADB: "is not an SQLite database, or is encrypted: choose another file",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore a backup, or save what `sqlite3 FILE .recover` still reads",
    sqlite3.SQLITE_PERM: "may not be opened by this user",
    sqlite3.SQLITE_AUTH: "may not be opened by this user",
}

_DROP = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def code_of(error: BaseException | None) -> int:
    """The primary result code of an SQLite error, 0 for everything else."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def breaks_connection(error: BaseException | None) -> bool:
    """Whether a new connection should be tried, because this one may have lost touch with the file."""
    return code_of(error if error is None else getattr(error, "error", error)) in _DROP


def explain(error: sqlite3.Error, path: str, outcome: Outcome, patience: float) -> StoreError:
    """The error to raise `from` this one."""
    code = code_of(error)
    where = f"database {path}"
    if code == sqlite3.SQLITE_CANTOPEN:
        return StoreUnavailable(f"{where} cannot be opened: {_why_not_open(path)} ({error})", outcome=outcome)
    if code in _FOR_NOW:
        reason = _FOR_NOW[code].format(patience=patience)
        return StoreUnavailable(f"{where} {reason} ({_name(error)})", outcome=outcome)
    if code in _FOR_GOOD:
        return StoreError(f"{where} {_FOR_GOOD[code]} ({_name(error)})")
    if outcome == "unknown":
        return StoreUnavailable(
            f"{where}: the outcome of a commit is unknown ({_name(error)}: {error})", outcome=outcome
        )
    return StoreError(f"{where} refused a statement, which should never happen ({_name(error)}: {error})")


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", type(error).__name__)


def _why_not_open(path: str) -> str:
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        return "it is a directory; name a file in it"
    if not os.path.isdir(folder):
        return f"there is no directory {folder}; create it first"
    if os.path.exists(path):
        return "this user may not open it, or too many files are open"
    return f"there is no such file, and none can be created in {folder}"
