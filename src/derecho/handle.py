"""Handles: what a client holds of one workflow."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from derecho.clock import SECOND, Duration, micros, to_datetime
from derecho.errors import DerechoError, WorkflowCancelled, WorkflowFailed, WorkflowTerminated
from derecho.history import History
from derecho.invocation import check_text
from derecho.journal import events as ev
from derecho.journal.failures import rebuild, short_type
from derecho.journal.model import RunRow, Status
from derecho.messages import Signal

if TYPE_CHECKING:
    from derecho.client import Client
    from derecho.journal.signatures import Signature

_ASIDE = 2.0
"""Seconds that a look may take which only makes a message better."""

R = TypeVar("R")
T = TypeVar("T")


class Run(NamedTuple):
    """One run as it is now. `blocked_reason` says why a blocked one cannot go on, and what to do."""

    workflow_id: str
    run_id: str
    workflow_type: str
    status: Status
    started_at: datetime
    closed_at: datetime | None
    blocked_reason: str | None

    @classmethod
    def of(cls, row: RunRow) -> "Run":
        closed_at = None if row.closed_at is None else to_datetime(row.closed_at)
        started_at = to_datetime(row.started_at)
        return cls(
            row.workflow_id, row.run_id, row.workflow_type, row.status, started_at, closed_at, row.blocked_reason
        )


class Handle(Generic[R]):
    """A workflow, or one run of it: `client.start(...)` and `client.get(...)` give it."""

    def __init__(
        self, client: "Client", id: str, run_id: str | None, signature: "Signature | None", *, started: bool = False
    ) -> None:
        self._client = client
        self._signature = signature
        self._run_id = run_id
        self._is_known = started or run_id is None
        self.id = id

    def __repr__(self) -> str:
        return f"<workflow {self.id!r}, run {self._run_id or 'latest'}>"

    @property
    def run_id(self) -> str:
        """The run that this handle names; "" when it stands for the latest."""
        return self._run_id or ""

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the workflow's result; follows continue-as-new.

        Raises WorkflowFailed (the author's own exception is its cause), WorkflowCancelled, WorkflowTerminated,
        WorkflowNotFound, and TimeoutError after `timeout`, with which nothing happens to the run.
        """
        if timeout is None:
            return await self._result()
        seconds = micros(timeout) / SECOND
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await self._result()
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(
                f"workflow {self.id!r} has no result after {seconds:g} s. {await self._state()}"
            ) from None

    async def _state(self) -> str:
        """What to do about a run that has no result yet."""
        with suppress(DerechoError, TimeoutError):
            async with asyncio.timeout(_ASIDE):
                run = await self.describe()
                if run.status == "blocked":
                    return f"It is blocked, and goes on when the cause is gone: {run.blocked_reason}"
        return "It goes on: ask again, or see where it is with describe() and history()"

    async def describe(self) -> Run:
        """The latest run of this id, or the run that the handle names. Raises WorkflowNotFound."""
        return await self._client.describe(self.id, self._run_id)

    async def history(self) -> History:
        """The events recorded so far. Raises WorkflowNotFound."""
        return await self._client.history(self.id, self._run_id)

    async def signal(self, signal: Signal[T], value: T, *, key: str | None = None) -> None:
        """Send a signal; on return it is durable, and the run or its successor will receive it.

        With `key`, a signal of the same key is received once, however often it is sent. Raises WorkflowNotFound when
        there is no open run, PayloadError when `value` does not fit.
        """
        if not isinstance(signal, Signal):
            raise TypeError(
                f"a signal is sent by its definition, such as Signal({str(signal)!r}, int), not by {signal!r}"
            )
        await self._client.signal(self.id, await self._run(), signal, value, key)

    async def cancel(self, reason: str = "", *, timeout: Duration | None = None) -> None:
        """Ask the run to end: its code sees CancelledError once. Raises WorkflowNotFound when none is open."""
        check_text(reason, "the reason of a cancellation")
        await self._client.cancel(self.id, await self._run(), reason, timeout)

    async def terminate(self, reason: str = "") -> None:
        """Close the run at once, whatever its code does. Harmless on a closed run."""
        check_text(reason, "the reason of a termination")
        await self._client.terminate(self.id, self._run_id, reason)

    async def _result(self) -> R:
        run_id = await self._run() or (await self._client.find(self.id)).run_id
        while True:
            status, outcome = await self._client.closing(self.id, run_id)
            if not isinstance(outcome, ev.WorkflowContinuedAsNew):
                return cast(R, self._open(status, outcome, run_id))
            run_id = await self._client.successor(self.id, run_id) or outcome.run_id

    async def _run(self) -> str | None:
        """The run that this handle names, once it is known to be a run of this workflow id."""
        if not self._is_known:
            await self._client.find(self.id, self._run_id)
            self._is_known = True
        return self._run_id

    def _open(self, status: Status, outcome: ev.Event, run_id: str) -> Any:
        where: Mapping[str, str] = {"workflow_id": self.id, "run_id": run_id}
        match outcome:
            case ev.WorkflowCompleted():
                if self._signature is not None:
                    return self._signature.decode_result(outcome.result, self._client.converter)
                return self._client.converter.decode(outcome.result, Any, f"the result of workflow {self.id!r}")
            case ev.WorkflowFailed():
                failure = outcome.failure
                raise WorkflowFailed(
                    f"workflow {self.id!r} failed: {short_type(failure.type)}: {failure.message}",
                    **where,
                    type_name=failure.type,
                    remote_traceback=failure.traceback,
                ) from rebuild(failure)
            case ev.WorkflowCancelled():
                raise WorkflowCancelled(
                    f"workflow {self.id!r} was cancelled: {outcome.reason or 'no reason given'}",
                    **where,
                    reason=outcome.reason,
                )
            case ev.WorkflowTerminated():
                raise WorkflowTerminated(
                    f"workflow {self.id!r} was terminated: {outcome.reason or 'no reason given'}",
                    **where,
                    reason=outcome.reason,
                )
            case _:
                raise WorkflowFailed(f"workflow {self.id!r} closed as {status}", **where)
