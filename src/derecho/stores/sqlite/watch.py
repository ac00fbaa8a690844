"""Noticing what other processes write to the file: a look at `PRAGMA data_version` while somebody waits.

The number changes when another connection has committed, never by our own commits. A look costs a few microseconds;
we look every 10 ms while others have just written and every 100 ms when it has been quiet.
"""

import logging
import sqlite3
import time

from derecho.stores.hints import Hints

log = logging.getLogger("derecho.stores.sqlite")

_SOON, _LATER = 0.010, 0.100
_LIVELY = 1.0
"""Seconds after which it counts as quiet, and after which nobody waits any more."""

_SAFE_TO_SHARE = (3, 51, 3)
"""The first release in which two connections that write and checkpoint at the same instant cannot damage the file."""


class Watch:
    """Lives in the writer's thread; bumps every topic when somebody else wrote, because it cannot know what."""

    def __init__(self, path: str, hints: Hints) -> None:
        self._path = path
        self._hints = hints
        self._version: int | None = None
        self._changed_at = self._waited_at = float("-inf")
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
        if self._hints.waiters:
            self._waited_at = now
        if now - self._waited_at > _LIVELY:
            return None
        return _SOON if now - self._changed_at < _LIVELY else _LATER

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
