"""One attempt of an activity: decode, run, encode; and what its end means.

Nothing here commits. An attempt ends as a fact with the change that removes its row (the outcome), or as a change that
makes the row due again (a retry).
"""

import asyncio
import contextvars
import logging
import random
import traceback
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from derecho.activity import ActivityContext, ActivityDefinition, CancelReason, _current
from derecho.clock import micros, to_datetime
from derecho.errors import PayloadError, RetryAfter
from derecho.journal import events as ev
from derecho.journal.changes import Change, FinishActivity, RetryActivity
from derecho.journal.deadlines import waiting_until
from derecho.journal.failures import Failure, cancelled_failure, to_failure
from derecho.journal.model import ActivityRow
from derecho.journal.payloads import Converter, Payload
from derecho.journal.policies import ancestry, retry_at
from derecho.journal.wire import encode_struct

log = logging.getLogger("derecho.activity")

_DEFAULT_RANDOM = random.SystemRandom()


class Attempt:
    """A claimed activity on its way. `row.claim` is the token that every write about it must match."""

    __slots__ = ("command", "context", "definition", "reason", "row", "task")

    def __init__(
        self,
        row: ActivityRow,
        command: ev.ActivityScheduled,
        definition: ActivityDefinition,
        resources: Mapping[type[Any], Any],
    ) -> None:
        self.row = row
        self.command = command
        self.definition = definition
        self.task: asyncio.Task[None] | None = None
        self.reason: CancelReason | None = None
        self.context = ActivityContext(
            workflow_id=row.workflow_id,
            run_id=row.run_id,
            workflow_type=row.workflow_type,
            name=row.name,
            activity=row.activity,
            attempt=row.attempt,
            scheduled_at=to_datetime(row.scheduled_at),
            resources=resources,
        )

    def cancel(self, reason: CancelReason) -> None:
        """Ask the code to stop: a flag for all, and asyncio's cancellation for what runs on the loop."""
        self.reason = self.context.cancel_reason = reason
        if self.task is not None:
            self.task.cancel()

    async def run(self, converter: Converter, pool: ThreadPoolExecutor) -> Payload:
        """Call the author's function; raises what it raises, PayloadError for values that do not fit."""
        definition = self.definition
        args, kwargs = definition.signature.decode(self.command.input, converter)
        token = _current.set(self.context)
        try:
            if definition.run_in == "loop":
                value = await definition.fn(*args, **kwargs)
            else:
                context = contextvars.copy_context()
                value = await asyncio.get_running_loop().run_in_executor(
                    pool, lambda: context.run(definition.fn, *args, **kwargs)
                )
        finally:
            _current.reset(token)
        return definition.signature.encode_result(value, converter)

    def completed(self, result: Payload, now: int, worker: str) -> tuple[ev.Fact, Change]:
        row = self.row
        fact = ev.ActivityCompleted(row.activity, result, now, row.attempt, row.started_at or now, worker)
        return fact, FinishActivity(row.run_id, row.activity, row.claim)

    def cancelled(self, now: int) -> tuple[ev.Fact, Change]:
        row = self.row
        fact = ev.ActivityCancelled(row.activity, cancelled_failure("cancelled while it ran"), now, row.attempt)
        return fact, FinishActivity(row.run_id, row.activity, row.claim)

    def failed(self, error: Exception, now: int, worker: str) -> tuple[ev.Fact | None, Change]:
        """The outcome of a failure: a fact and the removal of the row, or no fact and a retry."""
        retryable = not isinstance(error, PayloadError)
        failure = to_failure(error, retryable=retryable)
        delay = micros(error.delay) if isinstance(error, RetryAfter) else None
        return judge(
            self.row,
            self.command,
            failure,
            now=now,
            names=ancestry(error if not isinstance(error, RetryAfter) else error.__cause__ or error),
            delay=delay,
            worker=worker,
        )


def judge(
    row: ActivityRow,
    command: ev.ActivityScheduled,
    failure: Failure,
    *,
    now: int,
    worker: str = "",
    names: list[str] | None = None,
    delay: int | None = None,
) -> tuple[ev.Fact | None, Change]:
    """Ask the retry policy about a failed attempt; a timeout is the failure of an attempt like any other."""
    due = retry_at(
        command.retry,
        failure,
        attempt=row.attempt,
        now=now,
        random=_DEFAULT_RANDOM.random(),
        ancestry=names,
        delay=delay,
        close_at=row.close_at,
    )
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


def decode_command(row: ActivityRow) -> ev.ActivityScheduled:
    """The command that scheduled an activity, from its row."""
    try:
        return _command.decode(row.data)
    except msgspec.DecodeError as exc:
        raise PayloadError(f"activity {row.name!r} of run {row.run_id} cannot be read from its row: {exc}") from exc


_command = msgspec.json.Decoder(ev.ActivityScheduled)


def log_failure(attempt: Attempt, error: Exception, due: bool) -> None:
    """One WARNING per failed attempt, with the run, the activity and the attempt on it."""
    what = "will be retried" if due else "failed for good"
    attempt.context.log.warning(
        "activity %r %s after attempt %d: %s",
        attempt.row.name,
        what,
        attempt.row.attempt,
        "".join(traceback.format_exception_only(error)).strip(),
    )
