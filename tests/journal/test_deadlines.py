"""The four timeouts of an activity: which one runs out next, and which one has run out."""

import pytest

from derecho.errors import TimeoutKind
from derecho.journal.deadlines import close_at, ran_out, running_until, waiting_until
from derecho.journal.events import ActivityScheduled

ALL = ActivityScheduled("a", schedule_to_start=10, start_to_close=20, heartbeat=5, schedule_to_close=100)


def test_schedule_to_start_bounds_the_wait_for_the_first_attempt_only() -> None:
    assert waiting_until(ALL, 1_000, 1) == 1_010
    assert waiting_until(ALL, 1_000, 2) == 1_100


def test_a_running_attempt_is_bounded_by_the_nearest_of_three() -> None:
    assert running_until(ALL, 1_000, 1_008, 1_008) == 1_013
    assert running_until(ALL, 1_000, 1_008, 1_026) == 1_028
    assert running_until(ALL, 1_000, 1_090, 1_099) == 1_100


def test_without_timeouts_nothing_runs_out() -> None:
    bare = ActivityScheduled("a")
    assert (close_at(bare, 0), waiting_until(bare, 0, 1), running_until(bare, 0, 0, 0)) == (None, None, None)


@pytest.mark.parametrize("attempt", [1, 2, 7])
def test_every_attempt_is_armed_again(attempt: int) -> None:
    assert running_until(ActivityScheduled("a", start_to_close=20), 0, 500 * attempt, 500 * attempt) == (
        500 * attempt + 20
    )


@pytest.mark.parametrize(
    ("started_at", "attempt", "now", "kind"),
    [
        (None, 1, 1_010, "schedule_to_start"),
        (None, 2, 1_100, "schedule_to_close"),
        (1_008, 1, 1_013, "heartbeat"),
        (1_008, 1, 1_028, "start_to_close"),
        (1_008, 1, 1_100, "schedule_to_close"),
        (None, 1, 1_100, "schedule_to_close"),
    ],
)
def test_the_timeout_that_ran_out_is_named_and_final_ones_win(
    started_at: int | None, attempt: int, now: int, kind: TimeoutKind
) -> None:
    assert ran_out(ALL, scheduled_at=1_000, started_at=started_at, attempt=attempt, now=now) == kind
