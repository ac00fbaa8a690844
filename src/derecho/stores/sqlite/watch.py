"""Noticing what other processes write to the file: a look at `PRAGMA data_version` while somebody waits.

The number changes when another connection has committed, never by our own commits. A look costs a few microseconds,
and a hundred times that where the process has slept before: we look every 10 ms while others write, rarer when it gets
quiet, and not at all once nobody, we included, has written for a while: then an alarm on the log of the file wakes us.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable

from derecho.stores.hints import Hints
from derecho.stores.sqlite.alarm import Alarm

log = logging.getLogger("derecho.stores.sqlite")

_SOON, _LATER, _PART = 0.010, 0.250, 20
"""Seconds between two looks, shortest and longest; in between this part of the time for which it has been quiet."""
_NEVER = float("-inf")
_COMMIT = 1.0
"""Seconds that a commit may take from its last write to the log, which rings, until others can see it."""
_WAITED = 1.0
"""Seconds after which nobody waits any more."""

_SAFE_TO_SHARE = (3, 51, 3)
"""The first release in which two connections that write and checkpoint at the same instant cannot damage the file."""


class Watch:
    """Lives in the writer's thread; bumps every topic when somebody else wrote, because it cannot know what."""

    def __init__(self, path: str, hints: Hints, wake: Callable[[], None]) -> None:
        self._path = path
        self._hints = hints
        self._wake = wake
        self.alarm = Alarm(f"{os.path.realpath(path)}-wal", self._rung)  # where SQLite has it
        self._is_armed = self._has_rung = self._sleeps = False
        self._changes = 0  # of our own
        self._version: int | None = None
        self._changed_at = self._waited_at = self._wrote_at = _NEVER
        self._warned = sqlite3.sqlite_version_info >= _SAFE_TO_SHARE

    def begin(self, connection: sqlite3.Connection) -> None:
        """A new connection counts from anew, and what happened before it is not known."""
        self._version = self._read(connection)  # now: what happens before the first look must show in it
        self._hints.bump()

    def poll(self, connection: sqlite3.Connection) -> float | None:
        """Look; then say after how many seconds to look again, None when nobody waits."""
        now = time.monotonic()
        version = self._read(connection)
        if self._version is not None and version != self._version:
            self._changed_at = now
            self._hints.bump()
            self._warn()
        self._version = version
        if self._sleeps:  # while somebody waited
            self._sleeps, self._waited_at = False, now
        if self._hints.waiters:
            if self._waited_at == _NEVER:
                self._changed_at = now  # what is waited for is often about to come
            self._waited_at = now
        before, self._changes = self._changes, connection.total_changes
        if self._changes != before:
            self._wrote_at = now
        was_rung, self._has_rung = self._has_rung, False
        if was_rung and now - self._wrote_at > _LATER:  # else it rang for us
            self._changed_at = now  # somebody writes, whose commit may not be done yet
        if now - self._waited_at > _WAITED:
            self._waited_at = _NEVER
            return None
        pause = min(_LATER, max(_SOON, (now - self._changed_at) / _PART))
        if pause < _LATER or self._changes != before:
            return pause
        if self._is_armed:
            self._sleeps = True
            return None
        self._is_armed = True  # before it is: it may ring at once
        if not self.alarm.arm():
            self._is_armed = False
            return pause
        return _COMMIT  # one more look, for what was written before

    def _rung(self) -> None:
        self._is_armed, self._has_rung = False, True
        self._wake()

    def _read(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA data_version").fetchone()[0])

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "another connection writes to %s, and SQLite %s has a rare bug that can then damage the file: "
                "use 3.51.3 or newer, or one process, or PostgreSQL",
                self._path,
                sqlite3.sqlite_version,
            )
