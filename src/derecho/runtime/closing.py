"""How a run ends: which outcome the end of its main fiber means.

Two planes of failure: what the author raises fails the workflow. What can only be a slip of the code (a NameError, a
call with wrong arguments, a value that has no encoding) is raised instead, so that the engine blocks the run and fixed
code goes on with it.
"""

import re

from derecho.errors import ActivityFailed, DefinitionError, DerechoError, DeterminismError, PayloadError, WorkflowError
from derecho.journal import events as ev
from derecho.journal.failures import to_failure
from derecho.journal.payloads import Payload
from derecho.runtime.loop import Fiber, WorkflowLoop

PROGRAMMING_ERRORS: tuple[type[Exception], ...] = (
    NameError,
    AttributeError,
    ImportError,
    SyntaxError,
    NotImplementedError,
    RecursionError,
    AssertionError,
    DeterminismError,
    PayloadError,
    DefinitionError,
)
"""What no author raises on purpose in a workflow."""

_BAD_CALL = re.compile(
    r"(positional|keyword|keyword-only|required) argument|multiple values for argument|object is not callable"
    r"|^a duration is "
)


class ContinueAsNew(BaseException):
    """Raise what `ctx.continue_as_new(...)` returns: the run ends and its successor starts with a fresh history."""

    def __init__(self, command: ev.WorkflowContinuedAsNew) -> None:
        super().__init__(f"continue as new {command.workflow_type!r}")
        self.command = command


class ClosingRules:
    """The rules of one workflow type: `fail_on` and `block_on` move exception classes between failing and blocking."""

    def __init__(self, fail_on: tuple[type[Exception], ...] = (), block_on: tuple[type[Exception], ...] = ()) -> None:
        self._fail_on = fail_on
        self._block_on = block_on

    def outcome(
        self, main: Fiber[Payload], loop: WorkflowLoop, cancel: ev.CancelRequested | None, unread: int
    ) -> ev.CommandEvent:
        """The terminal command; raises what should block the run instead."""
        error: BaseException | None
        if main.cancelled():
            if cancel is not None:
                return ev.WorkflowCancelled(cancel.reason, unread=unread)
            error = DerechoError("the workflow's code cancelled itself, and nobody had asked for it")
        else:
            error = main.exception() or _forgotten(loop)
        if error is not None:
            error = ungroup(error)
        if error is None:
            return ev.WorkflowCompleted(main.result(), unread=unread)
        if isinstance(error, ContinueAsNew):
            return error.command
        if not isinstance(error, Exception):
            raise DerechoError(f"the workflow raised {error!r}, which is no Exception") from error
        if self.blocks(error):
            raise error
        return ev.WorkflowFailed(to_failure(error), unread=unread)

    def blocks(self, error: Exception) -> bool:
        """Whether this error is a slip of the code rather than an outcome."""
        if isinstance(error, self._block_on):
            return True
        if isinstance(error, ExceptionGroup):
            return any(self.blocks(inner) for inner in error.exceptions)
        if isinstance(error, self._fail_on) or isinstance(error.__cause__, (ActivityFailed, WorkflowError)):
            return False  # raised in an activity or child: an outcome
        if isinstance(error, TypeError):
            return _BAD_CALL.search(str(error)) is not None
        return isinstance(error, PROGRAMMING_ERRORS)


def ungroup(error: BaseException) -> BaseException:
    """A continue-as-new raised in a `TaskGroup` comes in a group; it counts when nothing else failed there."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    going, failed = error.split(ContinueAsNew)
    if going is None:
        return error
    return failed or ungroup(going.exceptions[0])


def _forgotten(loop: WorkflowLoop) -> BaseException | None:
    """The error of the first fiber that failed and that nobody awaited."""
    for fiber in loop.fibers.values():
        failed = fiber.done() and not fiber.cancelled() and fiber._log_traceback
        if failed and not loop.will_be_seen(fiber):
            return fiber.exception()
    return None
