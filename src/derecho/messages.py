"""Typed messages to workflows: values at module level, importable by clients without the workflow."""

from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar, cast, overload

from derecho.invocation import check_name
from derecho.runtime.channels import SignalBuffer
from derecho.runtime.loop import Future

T = TypeVar("T")


class Signal(Generic[T]):
    """A typed message from outside: `approvals = Signal("approval", Approval)` at module level."""

    @overload
    def __init__(self, name: str, type: type[T]) -> None: ...
    @overload
    def __init__(self, name: str, type: Any) -> None: ...

    def __init__(self, name: str, type: Any) -> None:
        self.name = check_name(name, "signal")
        self.type = type

    def __repr__(self) -> str:
        return f"Signal({self.name!r})"


class SignalChannel(AsyncIterator[T]):
    """The signals of one kind, in the order in which they were acknowledged; each goes to one receiver."""

    def __init__(self, buffer: SignalBuffer, type: Any) -> None:
        self._buffer = buffer
        self._type = type

    async def receive(self) -> T:
        """Wait for the next signal. A cancelled receive takes none."""
        return cast(T, await self._buffer.receive(self._type))

    def try_receive(self) -> T | None:
        """The next signal if one has come, else None."""
        return cast(T, self._buffer.take(self._type)) if len(self._buffer) else None

    def receive_future(self) -> Future[T]:
        """A future of the next signal, for `Selector`, `asyncio.wait` and the like."""
        return self._buffer.future(self._type)

    async def __anext__(self) -> T:
        return await self.receive()
