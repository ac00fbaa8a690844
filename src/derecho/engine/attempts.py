"""One attempt of an activity: decode, run, encode; how it is told to stop.

Where the code runs is the definition's choice: on the engine's loop, in a thread, in a child process. What an attempt's
end means for the activity is said in `outcomes`.
"""

import asyncio
import contextvars
from typing import TYPE_CHECKING

from msgspec.structs import replace

from derecho.activity import ActivityDefinition
from derecho.activity_context import ActivityContext, CancelReason, _current
from derecho.errors import PayloadError
from derecho.executors.child import Call as ChildCall
from derecho.executors.processes import function_path
from derecho.executors.threads import Call as ThreadCall
from derecho.journal import events as ev
from derecho.journal.model import ActivityRow
from derecho.journal.payloads import Payload
from derecho.journal.wire import decode_payload

if TYPE_CHECKING:
    from derecho.engine.activity_worker import ActivityWorker


class RefusedValue(Exception):
    """Arguments or a result that do not fit: no further attempt would do better. The cause is the error."""


class Overrun(Exception):
    """A transaction held the database for longer than it may."""


class Attempt:
    """A claimed activity on its way. `row.claim` is the token that every write about it must match."""

    __slots__ = (
        *("_call", "beat_at", "beat_planned", "command", "context", "definition", "entered_at"),
        *("has_begun", "has_ended", "in_line_until", "in_process", "next_beat_at", "reason", "row", "task", "worker"),
    )

    def __init__(
        self, worker: "ActivityWorker", row: ActivityRow, command: ev.ActivityScheduled, definition: ActivityDefinition
    ) -> None:
        self.worker = worker
        self.row = row
        self.command = command
        self.definition = definition
        self.in_process = definition.run_in == "process"
        self.task: asyncio.Task[None] | None = None
        self.reason: CancelReason | None = None
        self.entered_at: float | None = None  # loop time at which it entered a slot
        self.in_line_until = 0.0  # loop time until which it may wait for one
        self.has_begun = self.has_ended = False
        self.beat_at: int | None = None  # of the newest heartbeat that the store does not have
        self.beat_planned = False
        self.next_beat_at = 0
        self._call: ThreadCall | None = None
        self.context = ActivityContext(
            row,
            converter=worker.converter,
            beat=self._beat,
            resources=worker.resources,
            progress=None if row.heartbeat is None else decode_payload(row.heartbeat),
            client=worker.client,
        )

    def end(self) -> None:
        """Nobody is told any more; without the way back from its context an attempt is freed at once."""
        self.has_ended = True
        self.context._beat = _over

    def cancel(self, reason: CancelReason) -> None:
        """Tell the code to stop: by asyncio's cancellation, by an exception in its thread, by killing its process.

        It is told once, and then may clean up; only the engine's shutdown cuts that short. The first reason stands.
        """
        if self.has_ended or (self.reason is not None and reason != "shutdown"):
            return
        self.reason = self.reason or reason
        self.context.cancel_reason = self.reason
        if self._call is not None:
            self._call.interrupt()
        elif self.task is not None and self.has_begun:
            self.task.cancel()

    def abandon(self) -> None:
        """Stop waiting for a thread that does not stop."""
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> Payload | None:
        """Call the author's function; raises what it raises, and RefusedValue for values that do not fit.

        None: the outcome is recorded already, in the transaction of the function's own rows.
        """
        if self.reason is None and self.worker.is_late(self.row):
            self.reason = "timeout"  # the answer of a commit took so long; somebody may have judged it already
        self.has_begun = True
        if self.reason is not None:
            raise asyncio.CancelledError
        if self.in_process:
            return await self._run_in_process()
        signature, converter = self.definition.signature, self.worker.converter
        try:
            args, kwargs = signature.decode(self.command.input, converter)
        except PayloadError as exc:
            raise RefusedValue from exc
        _current.set(self.context)
        fn = self.definition.fn
        if self.definition.options.transactional:
            await self.worker.transact(self, lambda: fn(*args, **kwargs))
            return None
        if self.definition.run_in == "loop":
            value = await fn(*args, **kwargs)
        else:
            self._call = ThreadCall(lambda: fn(*args, **kwargs), contextvars.copy_context())
            value, error = await self.worker.threads.submit(self._call)
            if error is not None:
                raise error
        return self.encode(value)

    def encode(self, value: object) -> Payload:
        try:
            return self.definition.signature.encode_result(value, self.worker.converter)
        except PayloadError as exc:
            raise RefusedValue from exc

    async def _run_in_process(self) -> Payload:
        row = replace(self.row, data="")  # which has the input a second time
        call = ChildCall(function_path(self.definition), self.command.input, row, self.context._progress)
        return await self.worker.processes.run(call, self._beat_from_child)

    def _beat_from_child(self, progress: Payload | None) -> None:
        self.context._progress = progress
        self._beat()

    def _beat(self) -> None:
        self.worker.heartbeats.beat(self)


def _over() -> None:
    """The heartbeat of an attempt that has ended."""
