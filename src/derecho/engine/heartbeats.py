"""Heartbeats on their way to the store: throttled, always the newest, in order.

The first one of an attempt is written at once, then at most two per heartbeat timeout. A deadline counts from the call
of `heartbeat()`, not from the write. A refusal says that the attempt is no longer ours; a write that succeeds is the
occasion to ask whether it is still wanted.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from derecho.clock import SECOND
from derecho.engine.attempts import Attempt
from derecho.errors import StoreError
from derecho.journal.changes import Change, Conflict, Heartbeat, Result
from derecho.journal.deadlines import running_until
from derecho.journal.wire import encode_struct

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

LONGEST_INTERVAL = 5 * SECOND
"""How long progress may stay unwritten when no heartbeat timeout asks for less."""


class Heartbeats:
    """Writes heartbeats of one engine's attempts. `written` is called after each that the store took."""

    def __init__(self, engine: "Engine", written: Callable[[], None]) -> None:
        self._engine = engine
        self._written = written
        self._loop = asyncio.get_running_loop()

    def beat(self, attempt: Attempt) -> None:
        """`heartbeat()` was called; from any thread."""
        attempt.beat_at = now = self._engine.store.now()
        if not attempt.beat_planned or now >= attempt.next_beat_at:
            attempt.beat_planned = True
            self._loop.call_soon_threadsafe(self._plan, attempt)

    def _plan(self, attempt: Attempt) -> None:
        pause = attempt.next_beat_at - self._engine.store.now()
        if pause > 0:
            self._loop.call_later(pause / SECOND, self._write, attempt)
        else:
            self._write(attempt)

    def _write(self, attempt: Attempt) -> None:
        attempt.beat_planned = False
        changes = self.unwritten(attempt)
        if not changes or attempt.has_ended or self._engine.committer.is_closed:
            return

        def done(result: Result | StoreError) -> None:
            if isinstance(result, Conflict):
                attempt.cancel("lost")
            else:
                self._written()

        self._engine.submit(changes, done)

    def unwritten(self, attempt: Attempt) -> tuple[Change, ...]:
        """The newest heartbeat, if the store does not have it; it counts as written from now on."""
        beat_at, attempt.beat_at = attempt.beat_at, None
        row, progress = attempt.row, attempt.context._progress
        if beat_at is None or row.claim is None:
            return ()
        half = LONGEST_INTERVAL if attempt.command.heartbeat is None else attempt.command.heartbeat // 2
        attempt.next_beat_at = self._engine.store.now() + min(half, LONGEST_INTERVAL)
        details = None if progress is None else encode_struct(progress)
        timeout_at = running_until(attempt.command, row.scheduled_at, row.started_at or beat_at, beat_at)
        return (Heartbeat(row.run_id, row.activity, row.claim, details, timeout_at),)
