"""`ctx`: the one door through which a workflow's code asks for anything.

Every method is deterministic: it gives what history has, or records what it gives.
"""

import asyncio
import logging
import random as _random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cached_property
from typing import Any, Concatenate, ParamSpec, TypeVar, TypeVarTuple, cast, get_args

from derecho.activity import ActivityDefinition
from derecho.callbacks import Callback, new_callback
from derecho.clock import Duration, from_datetime, micros, to_datetime
from derecho.closures import result_type
from derecho.errors import DeterminismError
from derecho.info import CancelInfo, ReplayLog, StepOptions, WorkflowInfo
from derecho.invocation import Definition, Invocation, check_choice, check_name, check_text
from derecho.journal import events as ev
from derecho.journal.policies import RetryPolicy, RetryRule
from derecho.journal.signatures import decode_value, encode_value
from derecho.messages import Signal, SignalChannel
from derecho.queues import Queue
from derecho.runtime.closing import ContinueAsNew
from derecho.runtime.execution import Execution
from derecho.runtime.handles import ChildHandle, Timer
from derecho.runtime.loop import Future
from derecho.runtime.pipe import Channel
from derecho.runtime.randoms import ReplayRandom
from derecho.runtime.source import caller
from derecho.saga import Saga
from derecho.transactions import new_transaction

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HISTORY_ADVICE = 10_240
"""Events from which on `should_continue_as_new` is true."""

_ON_CANCEL, _CLOSE_POLICIES = get_args(ev.OnCancel), get_args(ev.ClosePolicy)


class Context:
    """Passed to every workflow as its first argument; use it only in the coroutines of that run."""

    def __init__(self, execution: Execution, started: ev.WorkflowStarted, defaults: RetryRule | None) -> None:
        self._execution = execution
        self._started = started
        self._default_retry = defaults

    @cached_property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """Adds the run to every record, and is silent while history is replayed."""
        started = self._started
        names = {"workflow_id": started.workflow_id, "run_id": started.run_id, "workflow_type": started.workflow_type}
        return ReplayLog(self._execution, names)

    @property
    def info(self) -> WorkflowInfo:
        """Ids, type, start and parent of this run, and the length of its history before this task."""
        started = self._started
        return WorkflowInfo(
            started.workflow_id,
            started.run_id,
            started.workflow_type,
            to_datetime(started.at),
            started.attempt,
            started.parent.workflow_id if started.parent is not None else None,
            self._execution.events,
        )

    @property
    def should_continue_as_new(self) -> bool:
        """Whether the history has grown so long that a fresh one would be better."""
        return self._execution.events >= HISTORY_ADVICE

    # --- time and chance ---------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The workflow's time: that of the workflow task at hand, the same on every replay."""
        return to_datetime(self._execution.at)

    @cached_property
    def random(self) -> _random.Random:
        """Random numbers that are the same on every replay."""
        return ReplayRandom(self._execution.seed, self._execution.check_inside)

    @cached_property
    def _uuids(self) -> _random.Random:
        return ReplayRandom(self._execution.seed + b"uuid", self._execution.check_inside)

    def uuid4(self) -> uuid.UUID:
        """A random UUID that is the same on every replay."""
        return uuid.UUID(int=self._uuids.getrandbits(128), version=4)

    def side_effect(self, fn: Callable[[], R], *, type: type[R] | None = None) -> R:
        """Call `fn` once in the life of the run and record what it gives: for something small and not deterministic.

        Raises PayloadError for a value that JSON would change when neither an annotation nor `type` says what it is.
        """
        annotation = result_type(fn, type, "ctx.side_effect")
        converter = self._execution.converter
        what = "the result of a side effect"
        payload = self._execution.side_effect(lambda: encode_value(fn(), annotation, converter, what), caller(2))
        return cast(R, decode_value(payload, annotation, converter, what))

    # --- activities and steps ----------------------------------------------------------------------------------------

    def execute(
        self,
        call: Invocation[R],
        *,
        retry: RetryPolicy | None = None,
        start_to_close: Duration | None = None,
        schedule_to_close: Duration | None = None,
        schedule_to_start: Duration | None = None,
        heartbeat_timeout: Duration | None = None,
        queue: Queue | None = None,
        on_cancel: ev.OnCancel = "request",
        summary: str = "",
    ) -> Future[R]:
        """Schedule an activity; it starts at once. Options given here win over those of its definition.

        Awaiting gives the result, or raises the author's own exception with `ActivityFailed` as cause.
        """
        definition = getattr(call, "definition", None)
        if not isinstance(definition, ActivityDefinition):
            raise DeterminismError(f"ctx.execute takes a call of an activity, such as charge.bind(…), not {call!r}")
        check_choice(on_cancel, _ON_CANCEL, "on_cancel")
        check_text(summary, "a summary")
        converter, options = self._execution.converter, definition.options
        named = queue or definition.queue
        event = ev.ActivityScheduled(
            definition.name,
            definition.signature.encode(call.values, converter),
            queue="default" if named is None else named.name,
            retry=retry.rule if retry is not None else options.retry or self._default_retry,
            start_to_close=options.start_to_close if start_to_close is None else micros(start_to_close),
            schedule_to_close=options.schedule_to_close if schedule_to_close is None else micros(schedule_to_close),
            schedule_to_start=options.schedule_to_start if schedule_to_start is None else micros(schedule_to_start),
            heartbeat=options.heartbeat if heartbeat_timeout is None else micros(heartbeat_timeout),
            on_cancel=on_cancel,
            source=caller(2),
            summary=summary,
        )
        return self._execution.schedule_activity(event, definition.signature.decode_result)

    def step(
        self,
        name: str,
        fn: Callable[[*Ts], Awaitable[R]],
        /,
        *args: *Ts,
        type: type[R] | None = None,
        retry: RetryPolicy | None = None,
        timeout: Duration | None = None,
    ) -> Future[R]:
        """Run a small closure in this run's worker and record its result; cheaper than an activity.

        It may do I/O and may run again after a crash. Without `retry` its first failure is final. Raises PayloadError
        for a result that would come back different; name its type by annotation or `type`.
        """
        check_name(name, "step")
        annotation = result_type(fn, type, f"step {name!r}")
        converter, what = self._execution.converter, f"the result of step {name!r}"
        options = StepOptions(
            None if retry is None else retry.rule,
            None if timeout is None else micros(timeout),
            lambda value: encode_value(value, annotation, converter, what),
        )

        def run() -> Coroutine[Any, Any, R]:
            return cast(Coroutine[Any, Any, R], fn(*args))

        return self._execution.schedule_step(
            ev.StepScheduled(name, source=caller(2)),
            lambda payload, converter: decode_value(payload, annotation, converter, what),
            run,
            options,
        )

    def transaction(
        self, fn: Callable[Concatenate[Any, P], Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """Run `fn(connection, ...)` in this run's worker: its rows and its recorded result are one commit, made once.

        It runs inside a transaction of the store's own database, which others wait for meanwhile: be brief, and touch
        nothing else. What it raises undoes its rows and is raised here. Name the type of its result by annotation.
        """
        return new_transaction(self._execution, fn, args, kwargs, caller(2))

    def callback(self, type: type[T], *, timeout: Duration | None = None) -> Callback[T]:
        """A promise that somebody outside keeps with `client.complete(token, value)` or breaks with `client.fail`.

        The token survives restarts and cannot be guessed. After `timeout` the future raises ActivityTimeout.
        """
        return new_callback(self._execution, type, None if timeout is None else micros(timeout), caller(2))

    # --- timers ------------------------------------------------------------------------------------------------------

    def new_timer(self, duration: Duration, *, summary: str = "") -> Timer:
        """A durable timer that starts at once; its result is the instant at which it was due. `cancel()` removes it."""
        return self._execution.schedule_timer(micros(duration), summary, caller(2))

    def sleep(self, duration: Duration, *, summary: str = "") -> Timer:
        """`await ctx.sleep(timedelta(days=7))`: survives restarts and weeks of downtime."""
        return self._execution.schedule_timer(micros(duration), summary, caller(2))

    def sleep_until(self, when: datetime, *, summary: str = "") -> Timer:
        """Sleep until an aware datetime; at once when it is past. A naive one raises ValueError."""
        return self._execution.schedule_timer(from_datetime(when) - self._execution.at, summary, caller(2))

    # --- fibers and conditions ---------------------------------------------------------------------------------------

    def go(
        self,
        fn: Callable[Concatenate["Context", P], Awaitable[R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[R]:
        """Start `fn(ctx, ...)` as a fiber of this run. An error that nobody awaits fails the run when it returns."""
        begun: Any = fn(self, *args, **kwargs)
        return cast(Future[R], begun if isinstance(begun, Future) else self._execution.loop.create_task(begun))

    async def wait_for(self, predicate: Callable[[], bool], timeout: Duration | None = None) -> bool:
        """Wait until `predicate()` holds; it is looked at whenever something ran. False when `timeout` came first."""
        if predicate():
            return True
        holds = self._execution.condition(predicate)
        if timeout is None:
            return await holds
        timer = self._execution.schedule_timer(micros(timeout), "", caller(1))

        def run_out(_: object) -> None:
            if not holds.done():
                holds.set_result(bool(predicate()))

        timer.add_done_callback(run_out)
        try:
            return await holds
        finally:
            if not timer.done():
                timer.cancel()

    # --- child workflows ---------------------------------------------------------------------------------------------

    def child(
        self,
        call: Invocation[R],
        *,
        id: str | None = None,
        close_policy: ev.ClosePolicy = "terminate",
        on_cancel: ev.OnCancel = "request",
        summary: str = "",
    ) -> ChildHandle[R]:
        """Start a child workflow, in the commit of this workflow task; the handle is a future of its result.

        Args:
            id: the child's workflow id; one of its own by default. A taken id raises WorkflowAlreadyRunning from the
                handle; the run that has it is left alone.
            close_policy: what happens to a child that is open when this run closes.
            on_cancel: what cancelling the handle does; "wait" ends the wait only when the child has ended.

        Awaiting raises the author's own exception with ChildWorkflowFailed as cause, WorkflowCancelled or
        WorkflowTerminated.
        """
        definition = _workflow_of(call, "ctx.child")
        execution = self._execution
        own_id, run_id = execution.new_child_id()
        if id is not None:
            check_name(id, "child workflow id")
        check_choice(close_policy, _CLOSE_POLICIES, "close_policy")
        check_choice(on_cancel, _ON_CANCEL, "on_cancel")
        check_text(summary, "a summary")
        event = ev.ChildScheduled(
            definition.name,
            id or own_id,
            run_id,
            definition.signature.encode(call.values, execution.converter),
            definition.version,
            definition.queue_name,
            close_policy,
            on_cancel,
            source=caller(2),
            summary=summary,
        )
        return execution.schedule_child(event, definition.signature.decode_result, self._send)

    def map(self, calls: Sequence[Invocation[R]], *, limit: int | None = None) -> Future[list[R]]:
        """Run activities or children, at most `limit` at once; results in order, the first failure cancels the rest."""
        if limit is not None and limit < 1:
            raise ValueError(f"ctx.map needs a limit of at least 1, not {limit}")
        return cast(Future[list[R]], self._execution.loop.create_task(self._map(list(calls), limit)))

    async def _map(self, calls: list[Invocation[R]], limit: int | None) -> list[R]:
        results: dict[int, R] = {}
        waiting = iter(enumerate(calls))

        async def lane() -> None:
            for index, call in waiting:
                started = self.execute(call) if call.definition.kind == "activity" else self.child(call)
                results[index] = await started

        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(min(len(calls), limit or len(calls))):
                    lanes.create_task(lane())
        except ExceptionGroup as group:
            raise group.exceptions[0]  # noqa: B904  # its own cause says what happened
        return [results[index] for index in range(len(calls))]

    def continue_as_new(self, call: Invocation[Any]) -> ContinueAsNew:
        """`raise ctx.continue_as_new(poller.bind(cursor))`: end this run, go on with a fresh history.

        Clients and signals follow; unread signals move over. Timers and activities of this run end, its children follow
        their close policy.
        """
        definition = _workflow_of(call, "ctx.continue_as_new")
        execution = self._execution
        values = definition.signature.encode(call.values, execution.converter)
        _, run_id = execution.new_child_id()
        return ContinueAsNew(
            ev.WorkflowContinuedAsNew(run_id, definition.name, values, definition.version, definition.queue_name)
        )

    # --- messages ----------------------------------------------------------------------------------------------------

    def signals(self, signal: Signal[T]) -> SignalChannel[T]:
        """The signals of one kind; those that came before this call are waiting in it."""
        return SignalChannel(self._execution.buffer(signal.name), signal.type)

    async def signal(self, workflow_id: str, signal: Signal[T], value: T) -> None:
        """Signal another workflow, once; raises WorkflowNotFound when it has no open run."""
        check_name(workflow_id, "workflow id")
        await self._send(workflow_id, signal, value, None)

    async def _send(self, workflow_id: str, signal: Signal[T], value: T, run_id: str | None) -> None:
        payload = encode_value(value, signal.type, self._execution.converter, f"signal {signal.name!r}")
        await self._execution.send_signal(ev.SignalSent(workflow_id, signal.name, payload, run_id, caller(1)))

    def channel(self, type: type[T], capacity: int = 0) -> Channel[T]:
        """A channel between fibers of this run; `type` is for readers and type checkers."""
        return Channel(self._execution, capacity)

    # --- cancellation and compensation -------------------------------------------------------------------------------

    def cancelled(self) -> Future[CancelInfo]:
        """A future of the request to cancel this run."""
        execution = self._execution
        future: Future[CancelInfo] = Future(loop=execution.loop)
        if execution.cancel is not None:
            future.set_result(_cancel_info(execution.cancel))
        else:
            execution.on_cancel.append(lambda fact: None if future.done() else future.set_result(_cancel_info(fact)))
        return future

    @asynccontextmanager
    async def shield(self, timeout: Duration | None = None) -> AsyncIterator[None]:
        """Hold a request to cancel this run back while the block runs, at most for `timeout`."""
        execution = self._execution
        open_shield = execution.raise_shield()
        timer = None if timeout is None else self.new_timer(timeout)
        if timer is not None:
            timer.add_done_callback(lambda _: execution.lower_shield(open_shield))
        try:
            yield
        finally:
            if timer is not None and not timer.done():
                timer.cancel()
            execution.lower_shield(open_shield)

    def saga(self) -> Saga:
        """`async with ctx.saga() as saga: … saga.compensate(refund.bind(charge_id))`: undo in reverse on failure."""
        return Saga(self)

    # --- versioning --------------------------------------------------------------------------------------------------

    def patched(self, change: str) -> bool:
        """True for runs that reach this point with today's code; false for those whose history went past without it."""
        check_name(change, "patch")
        return self._execution.patched(change, caller(2))


def _workflow_of(call: Invocation[Any], what: str) -> Definition:
    definition: Definition | None = getattr(call, "definition", None)
    if definition is None or definition.kind != "workflow":
        raise DeterminismError(f"{what} takes a call of a workflow, such as ship.bind(…), not {call!r}")
    return definition


def _cancel_info(fact: ev.CancelRequested) -> CancelInfo:
    return CancelInfo(fact.reason, to_datetime(fact.at))
