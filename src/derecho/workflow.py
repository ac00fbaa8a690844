"""Workflows: definitions, and the context through which their code asks for everything.

A workflow is `async def f(ctx, *args)`, straight-line code that survives crashes because its history is replayed. It
must ask for the same things in the same order every time: time, chance and the outside world come through `ctx`.
"""

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from derecho.context import Context
from derecho.errors import DefinitionError, PayloadError
from derecho.invocation import Definition, Invocation, check_name
from derecho.journal.events import WorkflowStarted
from derecho.journal.payloads import Converter, Payload
from derecho.journal.signatures import Signature
from derecho.queues import Queue
from derecho.runtime.closing import ClosingRules
from derecho.runtime.execution import Execution

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Context", "Workflow", "WorkflowDefinition", "workflow", "workflow_ref"]


class WorkflowDefinition(Definition):
    """What all workflows have in common; `Engine(workflows=...)` takes a mixed list."""

    kind = "workflow"

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        *,
        version: int = 1,
        queue: Queue | None = None,
        rules: ClosingRules | None = None,
        is_reference: bool = False,
        localns: dict[str, Any] | None = None,
    ) -> None:
        self.name = check_name(name, "workflow")
        if not inspect.iscoroutinefunction(fn):
            raise DefinitionError(f"workflow {name!r} must be an async def: async def {fn.__name__}(ctx, ...)")
        parameters = list(inspect.signature(fn).parameters.values())
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise DefinitionError(f"workflow {name!r} must take the context first: async def {fn.__name__}(ctx, ...)")
        if not (isinstance(version, int) and 1 <= version < 2**31):
            raise DefinitionError(f"workflow {name!r}: its version is an integer from 1 on, not {version!r}")
        self.fn = fn
        self.version = version
        self.queue = queue
        self.rules = rules or ClosingRules()
        self.is_reference = is_reference
        self.signature = Signature(fn, f"workflow {name!r}", skip=1, localns=localns)
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__wrapped__ = fn

    def __repr__(self) -> str:
        return f"<workflow {self.name!r}>"

    def new_execution(self, workflow_id: str, run_id: str, converter: Converter, defaults: Any = None) -> Execution:
        """A fresh run of this workflow's code, for first execution and replay alike."""
        main = partial(self._main, converter, defaults)
        return Execution(main, workflow_id=workflow_id, run_id=run_id, converter=converter, rules=self.rules)

    def _main(
        self, converter: Converter, defaults: Any, execution: Execution, started: WorkflowStarted
    ) -> Coroutine[Any, Any, Payload]:
        args, kwargs = self.signature.decode(started.input, converter)
        return self._run(converter, Context(execution, started, defaults), args, kwargs)

    async def _run(self, converter: Converter, ctx: Context, args: list[Any], kwargs: dict[str, Any]) -> Payload:
        return self.signature.encode_result(await self.fn(ctx, *args, **kwargs), converter)


class Workflow(WorkflowDefinition, Generic[P, R]):
    """A workflow. `bind` makes the call that `client.start` takes."""

    async def __call__(self, ctx: Context, *args: P.args, **kwargs: P.kwargs) -> R:
        return cast(R, await self.fn(ctx, *args, **kwargs))

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Invocation[R]:
        """The call as a value, not made yet; arguments are checked when it is started."""
        return Invocation(self, self.signature.bind(args, kwargs))


class WorkflowDecorator(Protocol):
    """What `@workflow(...)` with options gives."""

    def __call__(self, fn: Callable[Concatenate[Context, P], Awaitable[R]], /) -> Workflow[P, R]: ...


@overload
def workflow(fn: Callable[Concatenate[Context, P], Awaitable[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    name: str | None = None,
    /,
    *,
    version: int = 1,
    queue: Queue | None = None,
    fail_on: tuple[type[Exception], ...] = (),
    block_on: tuple[type[Exception], ...] = (),
) -> WorkflowDecorator: ...


def workflow(
    name: str | Callable[..., Any] | None = None,
    /,
    *,
    version: int = 1,
    queue: Queue | None = None,
    fail_on: tuple[type[Exception], ...] = (),
    block_on: tuple[type[Exception], ...] = (),
) -> Any:
    """Make a workflow of an `async def f(ctx, ...)`: `@workflow`, or `@workflow("order", ...)`.

    Exceptions that can only be slips of the code (NameError, AttributeError, AssertionError …) block a run until fixed
    code goes on; `fail_on` and `block_on` move classes between the two. Raises DefinitionError for a signature that
    cannot be recorded.
    """
    localns = sys._getframe(1).f_locals
    if callable(name):
        return Workflow(name, name.__name__, localns=localns)
    rules = ClosingRules(fail_on, block_on)
    return lambda fn: Workflow(fn, name or fn.__name__, version=version, queue=queue, rules=rules, localns=localns)


def workflow_ref(name: str, /) -> WorkflowDecorator:
    """Declare a workflow that other processes implement: a signature whose body is `raise NotImplementedError`."""
    localns = sys._getframe(1).f_locals
    return cast(WorkflowDecorator, lambda fn: Workflow(fn, name, is_reference=True, localns=localns))


def encode_input(call: Invocation[Any], converter: Converter) -> tuple[Payload, ...]:
    """The arguments of a call as payloads; raises PayloadError naming the parameter that does not fit."""
    definition = call.definition
    if not isinstance(definition, WorkflowDefinition):
        raise PayloadError(f"{call!r} is not a call of a workflow: pass some_workflow.bind(...)")
    return definition.signature.encode(call.values, converter)
