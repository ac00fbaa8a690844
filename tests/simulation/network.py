"""Between each engine and the one store: a network that is slow, loses, repeats and reorders."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from derecho.clock import SECOND
from derecho.errors import StoreError, StoreUnavailable
from derecho.journal.changes import Advance, ReleaseRun, Result, Transition
from derecho.journal.model import Topic
from tests.simulation.faults import NETWORK
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.server import Server

_READS = {"load", "get_run", "find_run", "closed", "children", "pending", "attempts", "list_runs", "workers"}
_TAKES = {"claim_runs", "claim_activities", "due_timers", "overdue"}
_QUICK, _SLOW = 0.004, 0.9
"""Longest way of a message, in seconds."""
_TIMEOUT = 1.5


class Line:
    """One process' connection to the server: a `Store`. Requests that are under way arrive also when it dies."""

    url = "memory:"

    def __init__(self, server: "Server", process: Process) -> None:
        self.server = server
        self.process = process
        self.faults = server.faults
        self._dice = server.dice
        self._skew = self._dice.randint(-2 * SECOND, 2 * SECOND)
        self._last = 0

    def now(self) -> int:
        """The deciding clock as this process believes it to be; never decreasing."""
        skew = self._skew if self.faults.has("skewed clocks") else 0
        self._last = max(self._last, self.server.store.now() + skew)
        return self._last

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def transact(self, work: Any) -> Result:
        raise StoreError("there are no rows of users' in a simulation")

    async def commit_within(self, connection: Any, transition: Transition) -> Result:
        raise StoreError("there are no rows of users' in a simulation")

    def __getattr__(self, name: str) -> Any:
        if name not in _READS | _TAKES:
            raise AttributeError(name)
        inner = getattr(self.server.store, name)

        async def call(*arguments: Any, **more: Any) -> Any:
            return await self._call(name, lambda: inner(*arguments, **more), name in _TAKES)

        return call

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        batch = list(transitions)
        robbed = [change for transition in batch for change in transition if isinstance(change, Advance)]
        robbed = [change for change in robbed if change.claim not in (None, "*")]

        async def apply() -> list[Result]:
            if robbed and self.faults.strikes("robbed", 0.04):
                victim = robbed[0]
                await self.server.store.commit([(ReleaseRun(victim.run_id, victim.claim or ""),)])
            return await self.server.commit(self.process, batch)

        results: list[Result] = await self._call("commit", apply, True)
        return results

    # --- on the way --------------------------------------------------------------------------------------------------

    def _way(self) -> float:
        longest = _SLOW if self.faults.has("slow network") and self._dice.random() < 0.2 else _QUICK
        return self._dice.random() * longest if self.faults.has("reordered") else longest / 2

    def _fault(self, kind: str, is_write: bool) -> str | None:
        """A database repeats no claim by itself; a commit is repeated by whoever sent it."""
        for name in NETWORK[:5] if kind == "commit" else NETWORK[:4] if is_write else NETWORK[:3]:
            if self.faults.strikes(name, 0.03 if is_write else 0.01):
                return name
        return None

    async def _call(self, name: str, apply: Callable[[], Coroutine[Any, Any, Any]], is_write: bool) -> Any:
        loop, server = asyncio.get_running_loop(), self.server
        fault = self._fault(name, is_write)
        if fault is not None:
            server.trace(f"{self.process.name} {name}: {fault}")
        if fault == "refused":
            await asyncio.sleep(self._way())
            raise StoreUnavailable("simulated: nothing was done")
        answer: asyncio.Future[Any] = loop.create_future()
        here = server.process.context  # what happens there happens whatever becomes of this process
        if fault != "lost request":
            late = self._dice.random() * 20 if fault == "late request" else 0.0
            heard = fault in (None, "twice")
            loop.call_later(self._way() + late, self._arrive, name, apply, answer if heard else None, context=here)
        if fault == "twice":
            loop.call_later(self._way() + self._dice.random() * 5, self._arrive, name, apply, None, context=here)
        if fault in ("lost request", "lost answer", "late request"):
            await asyncio.sleep(_TIMEOUT * self._dice.random())
            raise StoreUnavailable(f"simulated: {fault}", outcome="unknown")
        return await answer

    def _arrive(self, name: str, apply: Callable[[], Coroutine[Any, Any, Any]], answer: Any) -> None:
        """On the server. The store never waits, so a call is over at once."""
        try:
            result, error = at_once(apply()), None
        except Exception as exc:  # the answer is an error
            result, error = None, exc
        self.server.arrived(self.process, name, result)
        if answer is not None:
            asyncio.get_running_loop().call_later(self._way(), _answer, answer, result, error)

    # --- hints -------------------------------------------------------------------------------------------------------

    def seen(self, topic: Topic) -> int:
        return self.server.store.seen(topic)

    def hint(self, topic: Topic) -> None:
        if not (self.faults.has("lost hints") and self._dice.random() < 0.5):
            self.server.store.hint(topic)

    async def wait(self, topic: Topic, seen: int, timeout: float) -> None:
        if self.faults.has("lost hints") and self._dice.random() < 0.5:
            await asyncio.sleep(timeout)
        else:
            await self.server.store.wait(topic, seen, timeout)


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise RuntimeError("the memory store has waited")


def _answer(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
