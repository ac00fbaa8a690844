"""Which of an activity's four timeouts runs out next, and which has run out: pure arithmetic.

*schedule-to-start*: waiting for a worker, first attempt only, final. *start-to-close*: one attempt, retryable.
*heartbeat*: silence in one attempt, retryable. *schedule-to-close*: the whole budget with all retries, final.
"""

from typing import Protocol

import msgspec
from msgspec.structs import replace

from derecho.errors import TimeoutKind
from derecho.journal.events import ActivityScheduled
from derecho.journal.model import ActivityRow


class Bounds(Protocol):
    """What bounds one attempt, in microseconds: an `ActivityScheduled` has it."""

    @property
    def start_to_close(self) -> int | None: ...

    @property
    def heartbeat(self) -> int | None: ...

    @property
    def schedule_to_close(self) -> int | None: ...


class _Bounds(msgspec.Struct, frozen=True, gc=False):
    """What an activity's row has of them; all else in it is skipped, however large."""

    start_to_close: int | None = None
    heartbeat: int | None = None
    schedule_to_close: int | None = None


_bounds = msgspec.json.Decoder(_Bounds)


def claimed(row: ActivityRow, claim: str, worker: str, at: int, bounds: Bounds | None = None) -> ActivityRow:
    """The row once a worker has claimed it: an attempt begins, and with it the deadlines of that attempt.

    `bounds`: those that `row.data` has, when they are known.
    """
    try:
        timeout_at = running_until(bounds or _bounds.decode(row.data), row.scheduled_at, at, at)
    except msgspec.DecodeError:
        timeout_at = row.close_at  # the engine will say what is wrong with it
    return replace(row, claim=claim, worker=worker, started_at=at, timeout_at=timeout_at)


def close_at(command: Bounds, scheduled_at: int) -> int | None:
    return None if command.schedule_to_close is None else scheduled_at + command.schedule_to_close


def waiting_until(command: ActivityScheduled, scheduled_at: int, attempt: int) -> int | None:
    """`timeout_at` of an unclaimed activity."""
    if command.schedule_to_start is None or attempt > 1:
        return close_at(command, scheduled_at)
    return _earliest(scheduled_at + command.schedule_to_start, close_at(command, scheduled_at))


def running_until(command: Bounds, scheduled_at: int, started_at: int, beat_at: int) -> int | None:
    """`timeout_at` of a claimed activity that last gave a sign at `beat_at`."""
    if command.start_to_close is None and command.heartbeat is None:
        return close_at(command, scheduled_at)
    end = None if command.start_to_close is None else started_at + command.start_to_close
    beat = None if command.heartbeat is None else beat_at + command.heartbeat
    return _earliest(_earliest(end, beat), close_at(command, scheduled_at))


def ran_out(
    command: ActivityScheduled, *, scheduled_at: int, started_at: int | None, attempt: int, now: int
) -> TimeoutKind:
    """The timeout that an overdue activity has met; the final ones win over those of one attempt."""
    end = close_at(command, scheduled_at)
    if end is not None and now >= end:
        return "schedule_to_close"
    if started_at is None:
        return "schedule_to_start" if attempt == 1 else "schedule_to_close"
    if command.start_to_close is not None and now >= started_at + command.start_to_close:
        return "start_to_close"
    return "heartbeat"


def _earliest(one: int | None, other: int | None) -> int | None:
    if one is None:
        return other
    return one if other is None else min(one, other)
