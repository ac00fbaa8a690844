"""Signals waiting for a fiber, and the fibers waiting for signals.

A signal is handed to exactly one receiver. A receiver that is cancelled, or loses a race, takes nothing: what it had
been given goes back to the front.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from derecho.errors import PayloadError
from derecho.journal.events import SignalReceived
from derecho.runtime.loop import Future

if TYPE_CHECKING:
    from derecho.runtime.execution import Execution


class SignalFuture(Future[Any]):
    """Resolved with the next signal of its kind. `give_back` returns what nobody looked at."""

    def __init__(self, buffer: "SignalBuffer", type: Any) -> None:
        super().__init__(loop=buffer.execution.loop)
        self.buffer = buffer
        self.type = type
        self.fact: SignalReceived | None = None

    def give_back(self) -> None:
        """Return the signal to the front of the buffer, or stop waiting for one."""
        if self.fact is not None:
            fact, self.fact = self.fact, None
            self.buffer.put_back(fact)
        else:
            self.cancel()


class SignalBuffer:
    """All signals of one name of one run. Invariant: no facts wait while a live receiver waits."""

    def __init__(self, execution: "Execution", name: str) -> None:
        self.execution = execution
        self.name = name
        self._facts: deque[SignalReceived] = deque()
        self._receivers: deque[SignalFuture] = deque()

    def __len__(self) -> int:
        return len(self._facts)

    def unread(self) -> list[SignalReceived]:
        return list(self._facts)

    def push(self, fact: SignalReceived) -> None:
        self._facts.append(fact)
        self._serve()

    def put_back(self, fact: SignalReceived) -> None:
        self._facts.appendleft(fact)
        self._serve()

    def take(self, type: Any) -> Any:
        """The value of the first waiting signal; call only when there is one."""
        fact = self._facts.popleft()
        return self._decode(fact, type)

    def future(self, type: Any) -> SignalFuture:
        future = SignalFuture(self, type)
        self._receivers.append(future)
        self._serve()
        return future

    async def receive(self, type: Any) -> Any:
        if self._facts:
            return self.take(type)
        future = self.future(type)
        try:
            return await future
        except asyncio.CancelledError:
            future.give_back()
            raise

    def _serve(self) -> None:
        while self._facts and self._receivers:
            receiver = self._receivers.popleft()
            if receiver.done():
                continue
            fact = self._facts.popleft()
            receiver.fact = fact
            receiver.set_result(self._decode(fact, receiver.type))

    def _decode(self, fact: SignalReceived, type: Any) -> Any:
        try:
            return self.execution.converter.decode(fact.payload, type, f"signal {self.name!r}")
        except PayloadError as exc:
            self._facts.appendleft(fact)
            raise self.execution.break_task(exc) from None
