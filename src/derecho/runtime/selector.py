"""Waiting for the first of several things."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from derecho.errors import DerechoError
from derecho.runtime.channels import TakingFuture
from derecho.runtime.loop import Future

T = TypeVar("T")
R = TypeVar("R")


class _Case:
    """One future and what to do with its value. `live` is what waits for it now."""

    __slots__ = ("live", "then")

    def __init__(self, future: "asyncio.Future[Any]", then: Callable[[Any], Any]) -> None:
        self.live = future
        self.then = then

    def arm(self) -> None:
        """Take part in a round again."""
        live = self.live
        if isinstance(live, TakingFuture) and live.withdrawn:
            live.withdrawn = False
            live.source.enlist(live)

    def disarm(self) -> None:
        """Lose a round: what a receiving future had been given goes back, and it takes nothing meanwhile."""
        live = self.live
        if not isinstance(live, TakingFuture) or live.withdrawn:
            return
        if live.items:
            self.live = live.source.fresh(live)
            live.give_back()
        elif not live.done():
            live.withdrawn = True
            live.source.withdraw(live)


class Selector(Generic[R]):
    """Waits for the first of several futures; each case fires once, ties go to the case added first.

    A case that does not win stays for the next `select`; between two calls it takes no signal away from others.
    """

    def __init__(self) -> None:
        self._cases: list[_Case] = []

    def add(self, future: "asyncio.Future[T]", then: Callable[[T], R]) -> "Selector[R]":
        """Add a case: `then(value)` is what `select` returns when this future wins."""
        self._cases.append(_Case(future, then))
        return self

    def has_pending(self) -> bool:
        """Whether a case is left that has not fired."""
        return any(not case.live.cancelled() for case in self._cases)

    async def select(self, ctx: Any) -> R:
        """Wait for the first case and run it; raises its future's error. Raises DerechoError when no case is left."""
        cases = self._cases
        for case in cases:
            case.arm()
        won: _Case | None = None
        try:
            while won is None:
                cases[:] = [case for case in cases if not case.live.cancelled()]
                won = next((case for case in cases if case.live.done()), None)
                if won is None:
                    if not cases:
                        raise DerechoError("select() was called on a Selector with no case left: add one, or stop")
                    await _any_done(ctx, [case.live for case in cases])
        finally:
            if won is not None:
                cases.remove(won)
            for case in cases:
                case.disarm()
        return cast(R, won.then(won.live.result()))


async def _any_done(ctx: Any, futures: "list[asyncio.Future[Any]]") -> None:
    """Return when one of them is done; cancels none of them, keeps nothing behind."""
    wake: Future[None] = Future(loop=ctx._execution.loop)

    def on_done(_: object) -> None:
        if not wake.done():
            wake.set_result(None)

    for future in futures:
        future.add_done_callback(on_done)
    try:
        await wake
    finally:
        for future in futures:
            future.remove_done_callback(on_done)
