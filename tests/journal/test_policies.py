"""Backoff stays within its bounds for every attempt, and each rule of a policy decides what it says."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derecho import DefinitionError, RetryPolicy
from derecho.clock import FOREVER, SECOND
from derecho.journal.failures import to_failure
from derecho.journal.policies import RetryRule, ancestry, backoff, retry_at

RULES = st.builds(
    RetryRule,
    initial=st.integers(0, FOREVER - 1),
    coefficient=st.floats(1, 1e308),
    maximum=st.integers(0, FOREVER - 1),
    jitter=st.floats(0, 1),
)
ATTEMPTS = st.integers(1, 10**6)
RANDOM = st.floats(0, 1, exclude_max=True)


@given(RULES, ATTEMPTS, RANDOM)
def test_backoff_is_within_its_bounds_for_every_attempt(rule: RetryRule, attempt: int, random: float) -> None:
    assert 0 <= backoff(rule, attempt, random) <= rule.maximum


@given(RULES, ATTEMPTS)
def test_backoff_never_decreases_before_jitter(rule: RetryRule, attempt: int) -> None:
    plain = RetryRule(initial=rule.initial, coefficient=rule.coefficient, maximum=rule.maximum, jitter=0.0)
    assert backoff(plain, attempt, 0.5) <= backoff(plain, attempt + 1, 0.5)


@given(ATTEMPTS, st.integers(0, FOREVER))
def test_the_default_policy_always_has_a_next_attempt_soon(attempt: int, now: int) -> None:
    due = retry_at(RetryPolicy().rule, to_failure(ValueError()), attempt=attempt, now=now, random=0.999)
    assert due is not None
    assert now <= due <= min(FOREVER, now + 100 * SECOND)


def test_backoff_doubles_from_one_second_to_a_hundred() -> None:
    rule = RetryPolicy(jitter=0.0).rule
    assert [backoff(rule, attempt, 0.5) // SECOND for attempt in range(1, 10)] == [1, 2, 4, 8, 16, 32, 64, 100, 100]


@pytest.mark.parametrize(("random", "seconds"), [(0.0, 8.0), (0.5, 10.0), (0.999999, 12.0)])
def test_jitter_spreads_a_wait_evenly_around_itself(random: float, seconds: float) -> None:
    rule = RetryPolicy(initial_interval=10, jitter=0.2).rule
    assert backoff(rule, 1, random) == pytest.approx(seconds * SECOND, rel=1e-5)


class Declined(ValueError): ...


def due(policy: RetryPolicy | None, error: Exception, *, attempt: int = 1, **options: Any) -> int | None:
    return retry_at(
        None if policy is None else policy.rule,
        to_failure(error),
        attempt=attempt,
        now=1_000,
        random=0.5,
        ancestry=ancestry(error),
        **options,
    )


def test_attempts_are_counted_with_the_first_one() -> None:
    policy = RetryPolicy(max_attempts=3)
    assert [due(policy, ValueError(), attempt=n) is not None for n in (1, 2, 3, 4)] == [True, True, False, False]
    assert due(RetryPolicy.none(), ValueError()) is None
    assert due(None, ValueError()) is None


@pytest.mark.parametrize(
    ("policy", "error", "again"),
    [
        (RetryPolicy(retry_on=(OSError,)), OSError(), True),
        (RetryPolicy(retry_on=(OSError,)), ConnectionError(), True),
        (RetryPolicy(retry_on=(OSError,)), ValueError(), False),
        (RetryPolicy(give_up_on=(Declined,)), Declined(), False),
        (RetryPolicy(give_up_on=(ValueError,)), Declined(), False),
        (RetryPolicy(give_up_on=(Declined,)), ValueError(), True),
        (RetryPolicy(retry_on=(ValueError,), give_up_on=(Declined,)), Declined(), False),
    ],
)
def test_classes_decide_with_their_subclasses_and_giving_up_wins(
    policy: RetryPolicy, error: Exception, again: bool
) -> None:
    assert (due(policy, error) is not None) is again


def test_a_delay_asked_for_replaces_the_backoff() -> None:
    assert due(RetryPolicy(), ValueError(), delay=7) == 1_007
    assert due(RetryPolicy(), ValueError(), delay=-7) == 1_000
    assert due(RetryPolicy(), ValueError(), delay=2**70) == FOREVER


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backoff_coefficient": 0.5}, "backoff_coefficient must be at least 1"),
        ({"backoff_coefficient": math.nan}, "backoff_coefficient must be at least 1"),
        ({"backoff_coefficient": math.inf}, "backoff_coefficient must be at least 1"),
        ({"jitter": 1.5}, "jitter must be between 0 and 1"),
        ({"jitter": math.nan}, "jitter must be between 0 and 1"),
        ({"max_attempts": 0}, r"max_attempts must be an integer from 1 on \(or None\)"),
        ({"max_attempts": 2.5}, r"max_attempts must be an integer from 1 on \(or None\), not 2.5"),
        ({"initial_interval": -1}, "intervals cannot be negative"),
        ({"retry_on": (1,)}, "retry_on takes exception classes"),
        ({"give_up_on": (KeyboardInterrupt,)}, "give_up_on takes exception classes"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        RetryPolicy(**options)


def test_durations_are_seconds_or_timedeltas() -> None:
    assert RetryPolicy(initial_interval=0.5) == RetryPolicy(initial_interval=timedelta(milliseconds=500))
