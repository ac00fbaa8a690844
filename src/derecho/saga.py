"""Sagas: undo what was done, in reverse order, when the rest fails.

The compensations are activities or child workflows of the run, so they are durable themselves: after a crash in the
middle the undoing goes on where it was.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from derecho.errors import DeterminismError
from derecho.invocation import Definition, Invocation
from derecho.runtime.closing import ContinueAsNew, ungroup
from derecho.runtime.loop import ControlSignal

if TYPE_CHECKING:
    from derecho.context import Context


class Saga:
    """`async with ctx.saga() as saga:`: when the block fails or is cancelled, its compensations run, last one first."""

    def __init__(self, ctx: "Context") -> None:
        self._ctx = ctx
        self._calls: list[Invocation[Any]] = []

    def compensate(self, call: Invocation[Any]) -> None:
        """Remember how to undo what was just done: `saga.compensate(refund.bind(charge_id))`."""
        definition: Definition | None = getattr(call, "definition", None)
        if definition is None:
            raise DeterminismError(f"saga.compensate takes a call, such as refund.bind(charge_id), not {call!r}")
        # What could not be recorded is said here, where the code can still be mended, and not when all is lost.
        definition.signature.encode(call.values, self._ctx._execution.converter)
        self._calls.append(call)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if e is None or isinstance(ungroup(e), (ControlSignal, ContinueAsNew, GeneratorExit)):
            return
        ctx = self._ctx
        async with ctx.shield():
            while self._calls:
                call = self._calls.pop()
                try:
                    await (ctx.execute(call) if call.definition.kind == "activity" else ctx.child(call))
                except Exception as exc:
                    # One failed undo must not keep the others from being tried; the author's error stays the outcome.
                    e.add_note(f"compensation {call.name!r} failed: {type(exc).__name__}: {exc}")
                    ctx.log.error("compensation %r failed", call.name, exc_info=exc)
