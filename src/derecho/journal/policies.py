"""Retry policies and deadlines: pure arithmetic on integers, total for every attempt number.

Backoff saturates instead of overflowing (the Go original's went negative at attempt 35), and jitter is applied last, so
that the interval before it never decreases.
"""

import math
from collections.abc import Callable, Iterable

import msgspec

from derecho.clock import FOREVER, Duration, micros
from derecho.errors import DefinitionError
from derecho.journal.failures import Failure, type_path


class RetryRule(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A retry policy as stored: microseconds, and exception classes as "module:qualname"."""

    initial: int = 1_000_000
    coefficient: float = 2.0
    maximum: int = 100_000_000
    attempts: int | None = None
    jitter: float = 0.2
    retry_on: tuple[str, ...] = ("builtins:Exception",)
    give_up_on: tuple[str, ...] = ()
    has_predicate: bool = False


class RetryPolicy:
    """How often and how soon a failed attempt is repeated; by default for ever, from 1 s doubling to 100 s.

    Args:
        initial_interval: wait before the second attempt (timedelta or seconds).
        backoff_coefficient: factor from one wait to the next, at least 1.
        max_interval: the longest wait.
        max_attempts: all attempts counted, the first too; None is no limit.
        jitter: each wait is spread evenly over ± this share of itself, 0 to 1.
        retry_on: exception classes to retry. give_up_on: classes not to retry; it wins.
        retry_if: asked about every error that the classes would have retried. It is code, not data, so it belongs to
            the policy of an activity's definition or of the engine, never to that of a single call.
    """

    __slots__ = ("retry_if", "stored")

    def __init__(
        self,
        *,
        initial_interval: Duration = 1.0,
        backoff_coefficient: float = 2.0,
        max_interval: Duration = 100.0,
        max_attempts: int | None = None,
        jitter: float = 0.2,
        retry_on: tuple[type[Exception], ...] = (Exception,),
        give_up_on: tuple[type[Exception], ...] = (),
        retry_if: Callable[[Exception], bool] | None = None,
    ) -> None:
        if not (math.isfinite(backoff_coefficient) and backoff_coefficient >= 1):
            raise DefinitionError(f"RetryPolicy: backoff_coefficient must be at least 1, not {backoff_coefficient!r}")
        if not 0 <= jitter <= 1:
            raise DefinitionError(f"RetryPolicy: jitter must be between 0 and 1, not {jitter!r}")
        if max_attempts is not None and not (isinstance(max_attempts, int) and max_attempts >= 1):
            raise DefinitionError(
                f"RetryPolicy: max_attempts must be an integer from 1 on (or None), not {max_attempts!r}"
            )
        initial, maximum = micros(initial_interval), micros(max_interval)
        if initial < 0 or maximum < 0:
            raise DefinitionError("RetryPolicy: intervals cannot be negative")
        self.retry_if = retry_if
        self.stored = RetryRule(
            initial=initial,
            coefficient=float(backoff_coefficient),
            maximum=maximum,
            attempts=max_attempts,
            jitter=jitter,
            retry_on=_paths("retry_on", retry_on),
            give_up_on=_paths("give_up_on", give_up_on),
            has_predicate=retry_if is not None,
        )

    @property
    def rule(self) -> RetryRule:
        """The policy as data, for a single call; raises DefinitionError when part of it is code."""
        if self.retry_if is not None:
            raise DefinitionError(
                "RetryPolicy: retry_if cannot be recorded with a single call: give it to the activity's definition"
            )
        return self.stored

    @classmethod
    def none(cls) -> "RetryPolicy":
        """One attempt only."""
        return cls(max_attempts=1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RetryPolicy) and (self.stored, self.retry_if) == (other.stored, other.retry_if)

    def __hash__(self) -> int:
        return hash((self.stored.initial, self.stored.coefficient, self.stored.maximum, self.stored.attempts))

    def __repr__(self) -> str:
        return f"RetryPolicy({self.stored!r})"


def _paths(name: str, classes: Iterable[type[Exception]]) -> tuple[str, ...]:
    paths = []
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            raise DefinitionError(f"RetryPolicy: {name} takes exception classes, not {cls!r}")
        paths.append(type_path(cls))
    return tuple(paths)


def backoff(rule: RetryRule, attempt: int, random: float) -> int:
    """Microseconds to wait after failed attempt number `attempt` (from 1); `random` is evenly drawn from [0, 1)."""
    exponent = (attempt - 1) * math.log2(rule.coefficient)
    if rule.initial == 0:
        return 0
    if exponent + math.log2(rule.initial) >= 62:
        interval = rule.maximum
    else:
        interval = min(rule.maximum, int(rule.initial * rule.coefficient ** (attempt - 1)))
    spread = 1 + rule.jitter * (2 * random - 1)
    return max(0, min(rule.maximum, int(interval * spread)))


def is_last(rule: RetryRule | None, attempt: int) -> bool:
    """Whether no attempt can follow this one, whatever becomes of it."""
    return rule is None or (rule.attempts is not None and attempt >= rule.attempts)


def retry_at(
    rule: RetryRule | None,
    failure: Failure,
    *,
    attempt: int,
    now: int,
    random: float,
    ancestry: Iterable[str] | None = None,
    delay: int | None = None,
) -> int | None:
    """When to try again, or None when this attempt was the last.

    Args:
        ancestry: "module:qualname" of the exception's class and its bases, where the class was at hand; without it the
            failure's own class name decides, and `Exception` in `retry_on` matches everything.
        delay: what a `RetryAfter` asked for, in microseconds; it replaces the backoff and the question of the class.
    """
    if rule is None or is_last(rule, attempt) or not failure.retryable:
        return None
    names = set(ancestry) if ancestry is not None else {failure.type, "builtins:Exception"}
    if delay is None and (names & set(rule.give_up_on) or not names & set(rule.retry_on)):
        return None
    return min(FOREVER, now + (backoff(rule, attempt, random) if delay is None else max(0, delay)))


def ancestry(error: BaseException) -> list[str]:
    """ "module:qualname" of an exception's class and all its bases."""
    return [type_path(cls) for cls in type(error).__mro__ if issubclass(cls, BaseException)]
