"""A store that fails on demand: at its n-th call of a method, in one of several ways, or for ever after (a dead one).

It wraps a real store; the product has no switch for this.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from derecho.clock import SECOND
from derecho.errors import StoreUnavailable
from derecho.journal.changes import Result, Transition
from derecho.journal.store import DueTimers, Store

if TYPE_CHECKING:
    from derecho.engine import Engine

Mode = Literal["error_before", "error_after", "die_before", "die_after", "twice", "late", "before", "after"]
"""At the call: nothing is done and an error raised; it is done and the answer lost; the process dies before or after;
it is done twice; timers that are due are not seen for a while; `struck` is awaited before or after it is done."""

MODES: tuple[Mode, ...] = ("error_before", "error_after", "die_before", "die_after")
"""Those that any store may do at any call."""

LATE = 30 * SECOND
"""How much later than due a timer is seen in the mode "late"."""

_CALLS = {
    "commit",
    "claim_runs",
    "claim_activities",
    "attempts",
    "due_timers",
    "overdue",
    "load",
    "get_run",
    "find_run",
    "closed",
    "children",
    "pending",
}


class FaultyStore:
    """`at` counts the calls of `method` from 1; `fired` says how often the fault struck.

    In the modes "late", "before" and "after" `struck` is awaited. In "late" a look counts only when timers are due.
    """

    def __init__(
        self,
        inner: Store,
        method: str = "commit",
        at: int = 0,
        mode: Mode = "error_before",
        struck: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.inner = inner
        self.method = method
        self.at = at
        self.mode = mode
        self.calls = 0
        self.fired = 0
        self.died = asyncio.Event()
        self._struck = struck
        self._late_until: int | None = None

    def __getattr__(self, name: str) -> Any:
        target = getattr(self.inner, name)
        if name not in _CALLS:
            return target

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, target, args, kwargs)

        return call

    async def _call(self, name: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.died.is_set():
            await asyncio.sleep(3600)  # a dead process asks nothing and hears nothing
        if name != self.method:
            return await target(*args, **kwargs)
        if self.mode == "late":
            return await self._look_late(await target(*args, **kwargs))
        self.calls += 1
        if self.calls != self.at:
            return await target(*args, **kwargs)
        self.fired += 1
        return await self._strike(target, args, kwargs)

    async def _strike(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.mode == "error_before":
            raise StoreUnavailable("injected: nothing was done")
        if self.mode == "die_before":
            self.died.set()
            await asyncio.sleep(3600)
        if self.mode == "before" and self._struck is not None:
            await self._struck()
        result = await target(*args, **kwargs)
        if self.mode == "die_after":
            self.died.set()
            await asyncio.sleep(3600)
        if self.mode == "error_after":
            raise StoreUnavailable("injected: done, but the answer was lost", outcome="unknown")
        if self.mode == "twice":
            await target(*args, **kwargs)
        elif self.mode == "after" and self._struck is not None:
            await self._struck()
        return result

    async def _look_late(self, found: DueTimers) -> DueTimers:
        if not found.timers:
            return found
        now = self.inner.now()
        if self._late_until is None:
            self.calls += 1
            if self.calls != self.at:
                return found
            self.fired += 1
            self._late_until = now + LATE
            if self._struck is not None:
                await self._struck()
        return DueTimers([], self._late_until) if now < self._late_until else found

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        if self.died.is_set() and asyncio.current_task() is not None and not _is_engine_loop():
            raise StoreUnavailable("injected: this process is dead")
        return cast(list[Result], await self._call("commit", self.inner.commit, (transitions,), {}))


def _is_engine_loop() -> bool:
    """False on the thread that renews the lease: a dead process renews nothing, and its thread must end."""
    return threading.current_thread().name != "derecho-lease"


async def abandon(engine: "Engine") -> None:
    """Leave an engine as SIGKILL would: nothing is handed back, nothing is flushed."""
    engine.lease.stop()
    engine._running = False
    for attempt in engine.activities.running():
        attempt.cancel("lost")
    tasks = [*engine._tasks, *engine.workflows._background]
    if engine.committer._task is not None:
        tasks.append(engine.committer._task)
    for run in engine.workflows.runs:
        tasks.extend(run.steps.values())
        run.steps.clear()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for run in engine.workflows.runs:
        engine.workflows.evict(run)
    engine.workflows.turns.close()
    engine.activities.threads.close()
    engine.client._watcher.close()
