"""Stubs: what stands in for activities and children in a test, and what was called.

An activity runs its newest stub that is not used up. With no stub and no `use_real` the environment is told, which
fails the test at once.
"""

import asyncio
import difflib
import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from msgspec.structs import replace

from derecho.activity import Activity, ActivityDefinition, ActivityOptions, SyncActivity
from derecho.activity_context import current_activity
from derecho.engine.engine import Engine
from derecho.errors import PayloadError
from derecho.executors.child import Call as ChildCall
from derecho.executors.processes import function_path
from derecho.journal.payloads import Converter
from derecho.journal.signatures import Signature
from derecho.workflow import Workflow, WorkflowDefinition


@dataclass
class ActivityCall:
    """One attempt of an activity: its arguments in the order of the signature, and what came of it."""

    args: tuple[Any, ...]
    attempt: int
    result: Any = None
    error: Exception | None = None


class Missing(AssertionError):
    """An activity or a child was asked for that the test says nothing about."""


@dataclass
class Stub:
    """`fn` stands in for an activity, `times` times (None: always)."""

    fn: Callable[..., Any]
    times: int | None = None
    used: int = 0

    def is_left(self) -> bool:
        return self.times is None or self.used < self.times


@dataclass
class Stubs:
    """All that a test said about activities and children, and the calls that were made. `missing` is told the rest."""

    missing: Callable[[Exception], None]
    converter: Converter = field(default_factory=Converter)
    stubs: dict[str, list[Stub]] = field(default_factory=dict)
    real: dict[str, ActivityDefinition] = field(default_factory=dict)
    known: dict[str, ActivityDefinition] = field(default_factory=dict)
    children: dict[str, WorkflowDefinition] = field(default_factory=dict)
    calls: dict[str, list[ActivityCall]] = field(default_factory=dict)
    under_way: int = 0
    """Attempts that are inside a stub."""

    def fork(self, missing: Callable[[Exception], None]) -> "Stubs":
        """The same stubs, unused, with no calls: for another run of the same test."""
        fresh = {name: [Stub(stub.fn, stub.times) for stub in stubs] for name, stubs in self.stubs.items()}
        return Stubs(missing, self.converter, fresh, dict(self.real), dict(self.known), dict(self.children))

    # --- what the test says ------------------------------------------------------------------------------------------

    def add(self, activity: ActivityDefinition | str, stub: Stub) -> None:
        name = self.meet(activity)
        self.real.pop(name, None)
        self.stubs.setdefault(name, []).append(stub)

    def add_value(self, activity: ActivityDefinition | str, value: Any) -> None:
        if isinstance(activity, ActivityDefinition):
            activity.signature.encode_result(value, self.converter)  # refused here and now, not inside the run
        self.add(activity, Stub(lambda *args, **kwargs: value))

    def use_real(self, activity: ActivityDefinition) -> None:
        name = self.meet(activity)
        self.stubs.pop(name, None)
        self.real[name] = activity

    def add_child(self, workflow: WorkflowDefinition | str, value: Any) -> None:
        """A child of this type is over as soon as it begins, and gives `value`."""
        name = workflow if isinstance(workflow, str) else workflow.name

        async def child(ctx: Any, *args: Any) -> Any:
            return value

        stand_in: Workflow[Any, Any] = Workflow(child, name)
        if isinstance(workflow, WorkflowDefinition):
            workflow.signature.encode_result(value, self.converter)
            stand_in.signature = workflow.signature
        self.children[name] = stand_in

    def meet(self, activity: ActivityDefinition | str) -> str:
        """Remember a definition, whose types then apply to stubs by name, too; gives its name."""
        if isinstance(activity, str):
            return activity
        self.known.setdefault(activity.name, activity)
        return activity.name

    # --- what runs ---------------------------------------------------------------------------------------------------

    def definition(self, name: str) -> ActivityDefinition:
        """What an engine runs under this name: the real activity or its stubs, either way with the calls noted."""
        known = self.known.get(name)
        options = ActivityOptions() if known is None else known.options
        run_in = known.run_in if known is not None and name in self.real else "loop"
        if run_in == "thread" and known is not None:
            in_thread: SyncActivity[Any, Any] = SyncActivity(_anything_sync, name, options, known.queue, "thread")
            in_thread.fn, in_thread.signature = self._noting_sync(known), known.signature
            return in_thread
        if known is None or name not in self.real:
            options = ActivityOptions(options.retry, retry_if=options.retry_if)
        stand_in: Activity[Any, Any] = Activity(_anything, name, options, None, "loop")
        if known is not None:
            stand_in.signature = known.signature
        stand_in.fn = self._noting(name, self._body(name))
        return stand_in

    def _body(self, name: str) -> Callable[..., Awaitable[Any]]:
        real = self.real.get(name)
        if real is None:
            return lambda *args, **kwargs: self._stubbed(name, args, kwargs)
        if real.run_in == "process":
            return lambda *args, **kwargs: _in_process(real, args, kwargs)
        return cast(Callable[..., Awaitable[Any]], real.fn)

    async def _stubbed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        stub = next((stub for stub in reversed(self.stubs.get(name, ())) if stub.is_left()), None)
        self.under_way += 1
        try:
            if stub is None:
                self.missing(Missing(self._say_missing(name)))
                return await asyncio.Event().wait()  # the test has failed: nothing more is to happen here
            stub.used += 1
            self._check_call(name, stub.fn, args, kwargs)
            value = stub.fn(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value
        finally:
            self.under_way -= 1

    def _check_call(self, name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A stub that cannot take the arguments is a slip of the test, no failed attempt."""
        try:
            inspect.signature(fn).bind(*args, **kwargs)
        except TypeError as exc:
            given = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
            self.missing(Missing(f"the stub of activity {name!r} cannot be called with ({', '.join(given)}): {exc}"))
        except ValueError:
            pass  # a builtin that does not say what it takes

    def _say_missing(self, name: str) -> str:
        act = current_activity()
        used_up = " any more: its stubs are used up" if self.stubs.get(name) else ""
        said = [*self.stubs, *self.real]
        near = difflib.get_close_matches(name, [other for other in said if other != name])
        hint = f" Did you mean {_quoted(near)} in the test?" if near else ""
        has = _quoted(sorted(set(said))) or "nothing"
        return (
            f"workflow {act._row.workflow_type!r} called activity {name!r}, which has no stub"
            f"{used_up or ' and is not real'}.{hint} Say what it does: env.stub_value({name!r}, …), "
            f"env.stub(activity, function), or env.use_real(activity). This test has: {has}"
        )

    def _noting(self, name: str, body: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        async def noted(*args: Any, **kwargs: Any) -> Any:
            call = self._note(name, args, kwargs)
            try:
                call.result = await body(*args, **kwargs)
            except Exception as exc:
                call.error = exc
                raise
            return call.result

        return noted

    def _noting_sync(self, real: ActivityDefinition) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            call = self._note(real.name, args, kwargs)
            try:
                call.result = real.fn(*args, **kwargs)
            except Exception as exc:
                call.error = exc
                raise
            return call.result

        return noted

    def _note(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActivityCall:
        known = self.known.get(name)
        values = list(args) if known is None else in_order(known.signature, args, kwargs)
        call = ActivityCall(tuple(values), current_activity().attempt)
        self.calls.setdefault(name, []).append(call)
        return call

    # --- what the test asks ------------------------------------------------------------------------------------------

    def calls_of(self, activity: ActivityDefinition | str) -> list[ActivityCall]:
        return list(self.calls.get(self.meet(activity), ()))

    def called(self) -> str:
        """What was called, for messages."""
        return ", ".join(f"{name!r} {len(calls)} times" for name, calls in self.calls.items()) or "nothing"


def in_order(signature: Signature, args: Iterable[Any], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments of a call, defaults included, so that two ways to write one call are equal."""
    bound = signature._bindable.bind(*args, **kwargs)
    bound.apply_defaults()
    return [*bound.args, *bound.kwargs.values()]


async def _in_process(real: ActivityDefinition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run it in a child process, as the engine would."""
    act = current_activity()
    engine = act.client._host
    if not isinstance(engine, Engine):
        raise PayloadError(f"activity {real.name!r} runs in a process, and here is no engine")
    converter = engine.converter
    values = real.signature.encode(real.signature.bind(args, kwargs), converter)
    call = ChildCall(function_path(real), values, replace(act._row, data=""), act._progress)

    def beat(progress: Any) -> None:
        act._progress = progress
        act._beat()

    return real.signature.decode_result(await engine.activities.processes.run(call, beat), converter)


async def _anything(*args: Any) -> Any:
    """The signature of an activity that is known by its name only: plain values in and out."""


def _anything_sync(*args: Any) -> Any:
    """The same for a thread."""


def _quoted(names: Iterable[str]) -> str:
    return " or ".join(repr(name) for name in names)
