"""Conditions: fibers that wait until a predicate holds.

They are looked at when something ran and all is quiet, each once: a wake-up, never polling.
"""

import contextvars
from collections.abc import Callable

from derecho.runtime.guard import guard
from derecho.runtime.loop import Future


class Conditions:
    """The predicates of one run that do not hold yet, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], bool], Future[bool], contextvars.Context]] = []

    def add(self, predicate: Callable[[], bool], future: Future[bool]) -> Future[bool]:
        """Have `future` resolved as soon as `predicate` holds; an error of the predicate becomes the future's.

        It is asked with the context variables of whoever waits, not with those of the thread that drives the run.
        """
        self.waiting.append((predicate, future, contextvars.copy_context()))
        return future

    def clear(self) -> None:
        self.waiting.clear()

    def wake(self) -> bool:
        """Look at each condition once; True when one came true."""
        woken = False
        asked, self.waiting = self.waiting, []
        for predicate, future, context in asked:
            if future.done():
                continue
            try:
                with guard:
                    holds = context.run(predicate)
            except Exception as exc:
                future.set_exception(exc)
                woken = True
                continue
            if holds:
                future.set_result(True)
                woken = True
            else:
                self.waiting.append((predicate, future, context))
        return woken
