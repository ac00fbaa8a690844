"""Activities: where the outside world is touched.

An activity is attempted at least once and its outcome is recorded exactly once. `@activity` makes a definition; calling
it runs the plain function, `execute` schedules it from a workflow.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from derecho.clock import Duration, micros
from derecho.errors import DefinitionError
from derecho.invocation import Definition, Invocation, check_name
from derecho.journal.policies import RetryPolicy, RetryRule
from derecho.journal.signatures import Signature
from derecho.queues import Queue

if TYPE_CHECKING:
    from derecho.context import Context
    from derecho.runtime.loop import Future

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

RunIn = Literal["loop", "thread", "process"]
RetryIf = Callable[[Exception], bool]


class ActivityOptions(msgspec.Struct, frozen=True):
    """Durations in microseconds; None means the caller's, then the engine's default."""

    retry: RetryRule | None = None
    start_to_close: int | None = None
    schedule_to_close: int | None = None
    schedule_to_start: int | None = None
    heartbeat: int | None = None
    retry_if: RetryIf | None = None
    transactional: bool = False


class ActivityDefinition(Definition):
    """What all activities have in common; `Engine(activities=...)` takes a mixed list."""

    kind = "activity"

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        options: ActivityOptions,
        queue: Queue | None,
        run_in: RunIn,
        *,
        is_reference: bool = False,
        localns: dict[str, Any] | None = None,
    ) -> None:
        self.name = check_name(name, "activity")
        self.fn = fn
        self.options = options
        self.queue = queue
        self.run_in = run_in
        self.is_reference = is_reference
        self.signature = Signature(fn, f"activity {name!r}", localns=localns)
        self.__doc__ = fn.__doc__
        self.__name__ = getattr(fn, "__name__", name)
        self.__wrapped__ = fn

    def __repr__(self) -> str:
        return f"<activity {self.name!r}>"


class Activity(ActivityDefinition, Generic[P, R]):
    """An `async def` activity. Calling it runs the plain function; `execute` schedules it from a workflow."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, await self.fn(*args, **kwargs))

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Invocation[R]:
        """The call as a value, not made yet; arguments are checked when it is scheduled."""
        return Invocation(self, self.signature.bind(args, kwargs))

    def execute(self, ctx: "Context", *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Schedule it with the options of its definition; the future starts at once."""
        return ctx.execute(Invocation(self, self.signature.bind(args, kwargs)))


class SyncActivity(ActivityDefinition, Generic[P, R]):
    """A `def` activity: runs in a thread, or in a killable process with `run_in="process"`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, self.fn(*args, **kwargs))

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Invocation[R]:
        """The call as a value, not made yet; arguments are checked when it is scheduled."""
        return Invocation(self, self.signature.bind(args, kwargs))

    def execute(self, ctx: "Context", *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """Schedule it with the options of its definition; the future starts at once."""
        return ctx.execute(Invocation(self, self.signature.bind(args, kwargs)))


class ActivityDecorator(Protocol):
    """What `@activity(...)` with options gives."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...  # type: ignore[overload-overlap]  # async first, as in asyncio's own stubs
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncActivity[P, R]: ...


@overload
def activity(fn: Callable[P, Awaitable[R]], /) -> Activity[P, R]: ...  # type: ignore[overload-overlap]  # as above
@overload
def activity(fn: Callable[P, R], /) -> SyncActivity[P, R]: ...
@overload
def activity(
    name: str | None = None,
    /,
    *,
    retry: RetryPolicy | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
    schedule_to_start: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    queue: Queue | None = None,
    run_in: RunIn | None = None,
    transactional: bool = False,
) -> ActivityDecorator: ...


def activity(
    name: str | Callable[..., Any] | None = None,
    /,
    *,
    retry: RetryPolicy | None = None,
    start_to_close: Duration | None = None,
    schedule_to_close: Duration | None = None,
    schedule_to_start: Duration | None = None,
    heartbeat_timeout: Duration | None = None,
    queue: Queue | None = None,
    run_in: RunIn | None = None,
    transactional: bool = False,
) -> Any:
    """Make an activity of a function: `@activity`, or `@activity("charge", retry=...)`.

    Options live on the definition; `ctx.execute` names what differs for one call. Durations are timedeltas or seconds.
    `async def` runs on the engine's loop, `def` in a thread; with `run_in="process"` a `def` runs in a child process,
    which can be killed and may crash. With `transactional` an `async def` writes its own rows, through
    `current_activity().transaction`, in the commit of its outcome.

    Raises DefinitionError for a signature that cannot be recorded.
    """
    localns = sys._getframe(1).f_locals
    if callable(name):
        return _define(name, name.__name__, ActivityOptions(), None, None, localns=localns)
    options = ActivityOptions(
        retry=None if retry is None else retry.stored,
        start_to_close=_timeout("start_to_close", start_to_close),
        schedule_to_close=_timeout("schedule_to_close", schedule_to_close),
        schedule_to_start=_timeout("schedule_to_start", schedule_to_start),
        heartbeat=_timeout("heartbeat_timeout", heartbeat_timeout),
        retry_if=None if retry is None else retry.retry_if,
        transactional=transactional,
    )
    return lambda fn: _define(fn, name or fn.__name__, options, queue, run_in, localns=localns)


def activity_ref(name: str, /) -> ActivityDecorator:
    """Declare an activity that other processes implement: a signature whose body is `raise NotImplementedError`."""
    localns = sys._getframe(1).f_locals
    return cast(
        ActivityDecorator,
        lambda fn: _define(fn, name, ActivityOptions(), None, None, is_reference=True, localns=localns),
    )


def _define(
    fn: Callable[..., Any],
    name: str,
    options: ActivityOptions,
    queue: Queue | None,
    run_in: RunIn | None,
    *,
    is_reference: bool = False,
    localns: dict[str, Any],
) -> ActivityDefinition:
    is_async = inspect.iscoroutinefunction(fn)
    if is_async and run_in not in (None, "loop"):
        raise DefinitionError(f"activity {name!r} is async def, which runs on the loop: run_in={run_in!r} is for def")
    if not is_async and run_in == "loop":
        raise DefinitionError(f"activity {name!r} is a plain def and would block the loop: make it async def")
    if run_in == "process" and "<locals>" in fn.__qualname__:
        raise DefinitionError(
            f"activity {name!r} is defined inside a function, where a child process cannot find it: move it to the "
            "top of its module"
        )
    if options.transactional and not is_async:
        raise DefinitionError(f"activity {name!r} is transactional, which needs an async def")
    kind: type[ActivityDefinition] = Activity if is_async else SyncActivity
    where: RunIn = "loop" if is_async else run_in or "thread"
    return kind(fn, name, options, queue, where, is_reference=is_reference, localns=localns)


def _timeout(name: str, value: Duration | None) -> int | None:
    if value is None:
        return None
    result = micros(value)
    if result <= 0:
        raise DefinitionError(f"{name} must be longer than nothing, not {value!r}")
    return result
