"""Which of an activity's four timeouts runs out next, and which has run out: pure arithmetic.

*schedule-to-start*: waiting for a worker, first attempt only, final. *start-to-close*: one attempt, retryable.
*heartbeat*: silence in one attempt, retryable. *schedule-to-close*: the whole budget with all retries, final.
"""

from derecho.errors import TimeoutKind
from derecho.journal.events import ActivityScheduled


def close_at(command: ActivityScheduled, scheduled_at: int) -> int | None:
    return None if command.schedule_to_close is None else scheduled_at + command.schedule_to_close


def waiting_until(command: ActivityScheduled, scheduled_at: int, attempt: int) -> int | None:
    """`timeout_at` of an unclaimed activity."""
    start = None
    if command.schedule_to_start is not None and attempt == 1:
        start = scheduled_at + command.schedule_to_start
    return _earliest(start, close_at(command, scheduled_at))


def running_until(command: ActivityScheduled, scheduled_at: int, started_at: int, beat_at: int) -> int | None:
    """`timeout_at` of a claimed activity that last gave a sign at `beat_at`."""
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
