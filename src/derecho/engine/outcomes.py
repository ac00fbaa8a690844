"""What the end of an attempt means: a fact with the change that removes its row, or a change that makes it due again.

Nothing here commits. A timeout and the death of a worker are failures of an attempt like any other, and ask the same
policy.
"""

import logging
import random

import msgspec

from derecho.activity import RetryIf
from derecho.clock import micros
from derecho.engine.attempts import Attempt, Overrun, RefusedValue
from derecho.errors import PayloadError, RetryAfter
from derecho.executors.processes import RemoteError
from derecho.journal import events as ev
from derecho.journal.changes import Change, FinishActivity, RetryActivity
from derecho.journal.deadlines import waiting_until
from derecho.journal.failures import Failure, cancelled_failure, rebuild, short_type, timeout_failure, to_failure
from derecho.journal.model import ActivityRow
from derecho.journal.payloads import Payload
from derecho.journal.policies import ancestry, retry_at
from derecho.journal.wire import encode_struct

log = logging.getLogger("derecho.activity")

_random = random.SystemRandom()
_command = msgspec.json.Decoder(ev.ActivityScheduled)

Outcome = tuple[ev.Fact | None, Change]

TIMEOUT_NAMES = [
    "derecho.errors:ActivityTimeout",
    "derecho.errors:ActivityFailed",
    "derecho.errors:DerechoError",
    "builtins:TimeoutError",
    "builtins:Exception",
]
"""The classes that a policy may name for a timeout."""


class Verdict(msgspec.Struct, frozen=True):
    """A failure, and what the retry policy has to know of it. `delay` (microseconds) replaces its backoff."""

    failure: Failure
    names: list[str]
    delay: int | None = None


def completed(row: ActivityRow, result: Payload, now: int, worker: str) -> tuple[ev.Fact, Change]:
    fact = ev.ActivityCompleted(row.activity, result, now, row.attempt, row.started_at or now, worker)
    return fact, FinishActivity(row.run_id, row.activity, row.claim)


def cancelled(row: ActivityRow, now: int, message: str = "cancelled while it ran") -> tuple[ev.Fact, Change]:
    fact = ev.ActivityCancelled(row.activity, cancelled_failure(message), now, row.attempt)
    return fact, FinishActivity(row.run_id, row.activity, row.claim)


def failed(attempt: Attempt, error: BaseException, now: int, worker: str, default_retry_if: RetryIf | None) -> Outcome:
    """The outcome of what an attempt raised."""
    verdict = describe(error)
    if attempt.reason is not None or not _agrees(attempt, verdict, error, default_retry_if):
        verdict = msgspec.structs.replace(verdict, failure=_final(verdict.failure))
    outcome = judge(attempt.row, attempt.command, verdict, now=now, worker=worker)
    attempt.context.log.warning(
        "activity %r %s after attempt %d: %s",
        attempt.row.name,
        "will be retried" if outcome[0] is None else "failed for good",
        attempt.row.attempt,
        f"{short_type(verdict.failure.type)}: {verdict.failure.message}",
    )
    return outcome


def describe(error: BaseException) -> Verdict:
    """An error as the policy sees it; that of a child process as the child told it."""
    if isinstance(error, RemoteError):
        told = error.failed
        failure = _final(told.failure) if told.refused else told.failure
        return Verdict(failure, told.names, None if told.delay is None else micros(told.delay))
    if isinstance(error, RefusedValue):
        cause = error.__cause__ or error
        return Verdict(to_failure(cause, retryable=False), ancestry(cause))
    if isinstance(error, Overrun):
        return Verdict(timeout_failure("start_to_close", str(error)), TIMEOUT_NAMES)
    delay = None
    if isinstance(error, RetryAfter):
        delay, error = micros(error.delay), error.__cause__ or error
    names = ancestry(error)
    if not isinstance(error, Exception):
        names.append("builtins:Exception")  # a sys.exit() in an activity is the failure of an attempt
    return Verdict(to_failure(error), names, delay)


def judge(row: ActivityRow, command: ev.ActivityScheduled, verdict: Verdict, *, now: int, worker: str = "") -> Outcome:
    """Ask the retry policy about a failed attempt."""
    if row.cancel_requested:
        return cancelled(row, now, f"cancelled; its last attempt ended in: {verdict.failure.message}")
    failure = verdict.failure
    due = retry_at(
        command.retry,
        failure,
        attempt=row.attempt,
        now=now,
        random=_random.random(),
        ancestry=verdict.names,
        delay=verdict.delay,
    )
    if due is not None and row.close_at is not None and due >= row.close_at:
        message = f"activity {row.name!r} ran out of schedule_to_close: no time is left for attempt {row.attempt + 1}"
        due, failure = None, timeout_failure("schedule_to_close", message, failure)
    if due is not None and row.claim is not None:
        return None, RetryActivity(
            row.run_id,
            row.activity,
            row.claim,
            row.attempt + 1,
            due,
            waiting_until(command, row.scheduled_at, row.attempt + 1),
            encode_struct(failure),
        )
    finish = FinishActivity(row.run_id, row.activity, row.claim)
    started = row.started_at or now
    if failure.kind == "timeout" and failure.timeout is not None:
        return ev.ActivityTimedOut(row.activity, failure.timeout, failure, now, row.attempt, started), finish
    return ev.ActivityFailed(row.activity, failure, now, row.attempt, started, worker), finish


def _final(failure: Failure) -> Failure:
    return msgspec.structs.replace(failure, retryable=False)


def _agrees(attempt: Attempt, verdict: Verdict, error: BaseException, default: RetryIf | None) -> bool:
    """Whether the policy's predicate, if it has one, would retry this error. A `RetryAfter` is not put to it."""
    rule = attempt.command.retry
    predicate = attempt.definition.options.retry_if or default
    if rule is None or not rule.has_predicate or predicate is None or verdict.delay is not None:
        return True
    own = rebuild(verdict.failure) if isinstance(error, RemoteError) else error
    try:
        return not isinstance(own, Exception) or bool(predicate(own))
    except Exception:
        attempt.context.log.exception("retry_if of activity %r failed, so its classes decide", attempt.row.name)
        return True


def decode_command(row: ActivityRow) -> ev.ActivityScheduled:
    """The command that scheduled an activity, from its row."""
    try:
        return _command.decode(row.data)
    except msgspec.DecodeError as exc:
        raise PayloadError(f"activity {row.name!r} of run {row.run_id} cannot be read from its row: {exc}") from exc


def hand_back(row: ActivityRow, now: int) -> RetryActivity:
    """Make a claimed activity due again, the attempt not counted: it never began."""
    command = decode_command(row)
    until = waiting_until(command, row.scheduled_at, row.attempt)
    return RetryActivity(row.run_id, row.activity, row.claim or "", row.attempt, now, until, row.last_failure)
