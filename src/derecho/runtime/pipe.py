"""Channels: passing values between the fibers of one run."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

from derecho.errors import ChannelClosed
from derecho.runtime.channels import TakingFuture, put_back
from derecho.runtime.loop import Future

if TYPE_CHECKING:
    from derecho.runtime.execution import Execution

T = TypeVar("T")


class Channel(AsyncIterator[T]):
    """Passes values between fibers of one run; with capacity 0 a send waits until somebody receives.

    Invariant: no value and no sender waits while a live receiver waits.
    """

    def __init__(self, execution: "Execution", capacity: int = 0) -> None:
        if capacity < 0:
            raise ValueError(f"a channel's capacity cannot be negative: {capacity}")
        self._execution = execution
        self._capacity = capacity
        self._count = 0
        self._values: deque[tuple[int, T]] = deque()
        self._senders: deque[tuple[T, Future[None]]] = deque()
        self._receivers: deque[TakingFuture[T]] = deque()
        self._closed = False

    async def send(self, value: T) -> None:
        """Hand over a value; waits while the channel is full. Raises ChannelClosed on a closed channel."""
        if self._closed:
            raise ChannelClosed("send on a closed channel")
        if len(self._values) < self._capacity:
            self._append(value)
            self._serve()
            return
        sent: Future[None] = Future(loop=self._execution.loop)
        entry = (value, sent)
        self._senders.append(entry)
        self._serve()
        try:
            await sent
        except asyncio.CancelledError:
            if entry in self._senders:
                self._senders.remove(entry)
            raise

    async def receive(self) -> T:
        """Take the next value; a cancelled receive takes none. Raises ChannelClosed when closed and drained."""
        return await self.receive_future()

    def receive_future(self) -> Future[T]:
        """A future of the next value, for `Selector` and `asyncio.wait`; cancel it to stop waiting."""
        future: TakingFuture[T] = TakingFuture(self._execution, self)
        self.enlist(future)
        return future

    def close(self) -> None:
        """No more sends; what is in it can still be received. Sends that wait raise ChannelClosed."""
        self._closed = True
        while self._senders:
            _, sent = self._senders.popleft()
            if not sent.done():
                sent.set_exception(ChannelClosed("the channel was closed while a send waited"))
        self._serve()

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except ChannelClosed:
            raise StopAsyncIteration from None

    # --- as a source of `TakingFuture`s ------------------------------------------------------------------------------

    def enlist(self, future: TakingFuture[Any]) -> None:
        self._receivers.append(future)
        self._serve()

    def withdraw(self, future: TakingFuture[Any]) -> None:
        if future in self._receivers:
            self._receivers.remove(future)

    def put_back(self, item: tuple[int, T]) -> None:
        put_back(self._values, item)
        self._serve()

    def fresh(self, future: TakingFuture[Any]) -> TakingFuture[Any]:
        new: TakingFuture[T] = TakingFuture(self._execution, self)
        new.withdrawn = True
        return new

    def _serve(self) -> None:
        """Hand values to those who wait, in order; senders move up as room is made."""
        while self._receivers and (self._values or self._senders or self._closed):
            receiver = self._receivers.popleft()
            if receiver.done():
                continue
            if self._values:
                receiver.items.append(self._values.popleft())
                receiver.set_result(receiver.items[0][1])
            elif self._senders:
                self._admit()
                self._receivers.appendleft(receiver)
            else:
                receiver.set_exception(ChannelClosed("receive on a channel that is closed and drained"))
        while self._senders and len(self._values) < self._capacity:
            self._admit()

    def _admit(self) -> None:
        """Take the first waiting sender's value, unless that sender was cancelled."""
        value, sent = self._senders.popleft()
        if not sent.done():
            self._append(value)
            sent.set_result(None)

    def _append(self, value: T) -> None:
        self._count += 1
        self._values.append((self._count, value))
