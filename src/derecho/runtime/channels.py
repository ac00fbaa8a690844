"""Signals waiting for a fiber, and the fibers waiting for signals.

A signal is handed to exactly one receiver. A receiver that is cancelled, or loses a race, takes nothing: what it had
been given goes back to its place.
"""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Generator
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from derecho.errors import PayloadError
from derecho.journal.events import SignalReceived
from derecho.runtime.loop import Future

if TYPE_CHECKING:
    from derecho.runtime.execution import Execution

T = TypeVar("T")


class Source(Protocol):
    """Where a `TakingFuture` takes from."""

    def enlist(self, future: "TakingFuture[Any]") -> None:
        """Let it wait for the next item, behind those that wait already."""

    def withdraw(self, future: "TakingFuture[Any]") -> None:
        """Let it wait no more; it stays pending and takes nothing."""

    def put_back(self, item: Any) -> None:
        """Return an item to its place, in front of all that were behind it."""

    def fresh(self, future: "TakingFuture[Any]") -> "TakingFuture[Any]":
        """A new, withdrawn future that takes the same things."""


class TakingFuture(Future[T]):
    """Resolved with the next item of a source, which it takes away; `items` holds it until it is given back.

    A fiber that is cancelled when the item has come, but before it woke, has not received it.
    """

    def __init__(self, execution: "Execution", source: Source) -> None:
        super().__init__(loop=execution.loop)
        self.source = source
        self.items: list[Any] = []
        self.withdrawn = False
        self._gave_back = False

    def __await__(self) -> Generator[Any, None, T]:
        if self._gave_back:
            raise asyncio.CancelledError("what was received has been given back")
        try:
            return (yield from super().__await__())
        except asyncio.CancelledError:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Nobody looked at the value: return the item, or stop waiting for one."""
        if self.items:
            self._gave_back = True
            self.source.put_back(self.items.pop())
        else:
            self.cancel()


class SignalFuture(TakingFuture[Any]):
    """Resolved with the next signal of its kind, decoded as `type`; `seen` once somebody has looked at it."""

    def __init__(self, execution: "Execution", source: Source, type: Any) -> None:
        super().__init__(execution, source)
        self.type = type
        self.seen = False

    def result(self) -> Any:
        """asyncio asks for it when it wakes the fiber that waits."""
        value = super().result()
        self.seen = True
        return value


def put_back(waiting: "deque[tuple[int, T]]", item: tuple[int, T]) -> None:
    """Insert a numbered item where it was before it was taken out."""
    insort(waiting, item, key=itemgetter(0))


class SignalBuffer:
    """All signals of one name of one run. Invariant: no facts wait while a live receiver waits."""

    def __init__(self, execution: "Execution", name: str) -> None:
        self.execution = execution
        self.name = name
        self._facts: deque[tuple[int, SignalReceived]] = deque()
        self._receivers: deque[SignalFuture] = deque()
        self._given: deque[SignalFuture] = deque()

    def __len__(self) -> int:
        return len(self._facts)

    def unread(self) -> list[tuple[int, SignalReceived]]:
        """What nobody has looked at, each with its place among all signals of the run."""
        given = [item for future in self._given if not future.seen for item in future.items]
        return [*given, *self._facts]

    def push(self, place: int, fact: SignalReceived) -> None:
        self._facts.append((place, fact))
        self._serve()

    def put_back(self, item: tuple[int, SignalReceived]) -> None:
        put_back(self._facts, item)
        self._serve()

    def take(self, type: Any) -> Any:
        """The value of the first waiting signal; call only when there is one."""
        value = self._decode(self._facts[0][1], type)
        self._facts.popleft()
        return value

    def future(self, type: Any) -> SignalFuture:
        future = SignalFuture(self.execution, self, type)
        self.enlist(future)
        return future

    def fresh(self, future: TakingFuture[Any]) -> SignalFuture:
        new = SignalFuture(self.execution, self, getattr(future, "type", Any))
        new.withdrawn = True
        return new

    def enlist(self, future: TakingFuture[Any]) -> None:
        if isinstance(future, SignalFuture):
            self._receivers.append(future)
            self._serve()

    def withdraw(self, future: TakingFuture[Any]) -> None:
        if isinstance(future, SignalFuture) and future in self._receivers:
            self._receivers.remove(future)

    async def receive(self, type: Any) -> Any:
        if self._facts and self.execution.loop.broken is None:
            return self.take(type)
        return await self.future(type)

    def _serve(self) -> None:
        while self._facts and self._receivers and self.execution.loop.broken is None:
            receiver = self._receivers[0]
            if not receiver.done():
                value = self._decode(self._facts[0][1], receiver.type)
                receiver.items.append(self._facts.popleft())
                receiver.set_result(value)
                while self._given and self._given[0].seen:
                    self._given.popleft()
                self._given.append(receiver)
            self._receivers.popleft()

    def _decode(self, fact: SignalReceived, type: Any) -> Any:
        try:
            return self.execution.converter.decode(fact.payload, type, f"signal {self.name!r}")
        except PayloadError as exc:
            raise self.execution.break_task(exc) from None
