"""`ctx`: the one door through which a workflow's code asks for anything.

Every method is deterministic: it gives what history has, or records what it gives.
"""

import logging
import random as _random
import typing
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from datetime import datetime
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar, TypeVarTuple, cast, overload

from derecho.activity import ActivityDefinition, ActivityOptions
from derecho.clock import Duration, from_datetime, micros, to_datetime
from derecho.errors import DeterminismError
from derecho.invocation import Invocation, check_name
from derecho.journal import events as ev
from derecho.journal.payloads import Payload
from derecho.journal.policies import RetryPolicy, RetryRule
from derecho.journal.signatures import UNTYPED, decode_value, encode_value, read_hints
from derecho.queues import Queue
from derecho.runtime.channels import SignalBuffer
from derecho.runtime.execution import Execution
from derecho.runtime.handles import Timer
from derecho.runtime.loop import Future
from derecho.runtime.randoms import ReplayRandom
from derecho.runtime.source import caller

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HISTORY_ADVICE = 10_240
"""Events from which on `should_continue_as_new` is true."""


class Signal(Generic[T]):
    """A typed message from outside: `approvals = Signal("approval", Approval)` at module level."""

    @overload
    def __init__(self, name: str, type: type[T]) -> None: ...
    @overload
    def __init__(self, name: str, type: Any) -> None: ...

    def __init__(self, name: str, type: Any) -> None:
        self.name = check_name(name, "signal")
        self.type = type

    def __repr__(self) -> str:
        return f"Signal({self.name!r})"


class SignalChannel(AsyncIterator[T]):
    """The signals of one kind, in the order in which they were acknowledged; each goes to one receiver."""

    def __init__(self, buffer: SignalBuffer, type: Any) -> None:
        self._buffer = buffer
        self._type = type

    async def receive(self) -> T:
        """Wait for the next signal. A cancelled receive takes none."""
        return cast(T, await self._buffer.receive(self._type))

    def try_receive(self) -> T | None:
        """The next signal if one has come, else None."""
        return cast(T, self._buffer.take(self._type)) if len(self._buffer) else None

    def receive_future(self) -> Future[T]:
        """A future of the next signal, for `Selector`, `asyncio.wait` and the like."""
        return self._buffer.future(self._type)

    async def __anext__(self) -> T:
        return await self.receive()


class WorkflowInfo(NamedTuple):
    """Who this run is."""

    workflow_id: str
    run_id: str
    workflow_type: str
    start_time: datetime
    attempt: int
    parent_id: str | None
    history_length: int


class StepOptions(NamedTuple):
    """How a step is retried, and how long one attempt may take (microseconds)."""

    retry: RetryRule | None
    timeout: int | None
    encode: Callable[[Any], Payload]


class _ReplayLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the run to every record, and is silent while history is replayed."""

    def __init__(self, execution: Execution, extra: Mapping[str, object]) -> None:
        super().__init__(logging.getLogger("derecho.workflow"), dict(extra))
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # logging's own name
        return not self._execution.replaying and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class Context:
    """Passed to every workflow as its first argument; use it only in the coroutines of that run."""

    def __init__(self, execution: Execution, started: ev.WorkflowStarted, defaults: RetryRule | None) -> None:
        self._execution = execution
        self._started = started
        self._default_retry = defaults
        self._uuids = ReplayRandom(execution.seed + b"uuid")
        self.random: _random.Random = ReplayRandom(execution.seed)
        self.log: logging.LoggerAdapter[logging.Logger] = _ReplayLog(
            execution,
            {
                "workflow_id": started.workflow_id,
                "run_id": started.run_id,
                "workflow_type": started.workflow_type,
            },
        )

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

    def uuid4(self) -> uuid.UUID:
        """A random UUID that is the same on every replay."""
        return uuid.UUID(int=self._uuids.getrandbits(128), version=4)

    def side_effect(self, fn: Callable[[], R], *, type: type[R] | None = None) -> R:
        """Call `fn` once in the life of the run and record what it gives: for something small and not deterministic.

        Raises PayloadError for a value that JSON would change when neither an annotation nor `type` says what it is.
        """
        annotation = _result_type(fn, type, "ctx.side_effect")
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
        definition = call.definition
        if not isinstance(definition, ActivityDefinition):
            raise DeterminismError(f"ctx.execute takes a call of an activity, such as charge.bind(…), not {call!r}")
        converter, options = self._execution.converter, definition.options
        named = queue or definition.queue
        event = ev.ActivityScheduled(
            definition.name,
            definition.signature.encode(call.values, converter),
            queue="default" if named is None else named.name,
            retry=retry.rule if retry is not None else options.retry or self._default_retry,
            start_to_close=_either(start_to_close, options.start_to_close),
            schedule_to_close=_either(schedule_to_close, options.schedule_to_close),
            schedule_to_start=_either(schedule_to_start, options.schedule_to_start),
            heartbeat=_either(heartbeat_timeout, options.heartbeat),
            on_cancel=on_cancel,
            source=caller(2),
            summary=summary,
        )
        decode = definition.signature.decode_result
        return self._execution.schedule_activity(event, lambda payload: decode(payload, converter))

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
        annotation = _result_type(fn, type, f"step {name!r}")
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
            lambda payload: decode_value(payload, annotation, converter, what),
            run,
            options,
        )

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
        coro = cast(Coroutine[Any, Any, R], fn(self, *args, **kwargs))
        return cast(Future[R], self._execution.loop.create_task(coro))

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
                holds.set_result(predicate())

        timer.add_done_callback(run_out)
        try:
            return await holds
        finally:
            if not timer.done():
                timer.cancel()

    # --- messages ----------------------------------------------------------------------------------------------------

    def signals(self, signal: Signal[T]) -> SignalChannel[T]:
        """The signals of one kind; those that came before this call are waiting in it."""
        return SignalChannel(self._execution.buffer(signal.name), signal.type)


def _either(given: Duration | None, default: int | None) -> int | None:
    return default if given is None else micros(given)


_types: dict[Any, Any] = {}


def _result_type(fn: Callable[..., Any], given: Any, what: str) -> Any:
    """The result type of a closure: as given, as annotated, or UNTYPED. Kept per code object, not per closure."""
    if given is not None:
        return given
    code = getattr(fn, "__code__", None)
    if code is None:
        target = getattr(fn, "__wrapped__", fn)
        return typing.get_type_hints(target).get("return", UNTYPED) if hasattr(target, "__annotations__") else UNTYPED
    try:
        return _types[code]
    except KeyError:
        names = {name: cell for name, cell in _closure(fn).items() if isinstance(cell, type)}
        found = _types[code] = read_hints(fn, what, names or None).get("return", UNTYPED)
        return found


def _closure(fn: Callable[..., Any]) -> dict[str, Any]:
    cells = getattr(fn, "__closure__", None) or ()
    found = {}
    for name, cell in zip(fn.__code__.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a name that is bound only later
            continue
    return found


__all__ = ["ActivityOptions", "Context", "Signal", "SignalChannel", "StepOptions", "WorkflowInfo"]
