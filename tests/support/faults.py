"""A store that fails on demand: at its n-th call, in one of four ways, or for ever after (a dead process).

It wraps a real store; the product has no switch for this.
"""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Literal, cast

from derecho.errors import StoreUnavailable
from derecho.journal.changes import Result, Transition
from derecho.journal.store import Store

Mode = Literal["error_before", "error_after", "die_before", "die_after"]
MODES: tuple[Mode, ...] = ("error_before", "error_after", "die_before", "die_after")

_ASYNC = {"commit", "claim_runs", "claim_activities", "due_timers", "overdue", "load", "get_run", "find_run", "closed"}


class FaultyStore:
    """`at` counts the calls of `method` from 1; `fired` says how often the fault struck."""

    def __init__(self, inner: Store, method: str = "commit", at: int = 0, mode: Mode = "error_before") -> None:
        self.inner = inner
        self.method = method
        self.at = at
        self.mode = mode
        self.calls = 0
        self.fired = 0
        self.died = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        target = getattr(self.inner, name)
        if name not in _ASYNC:
            return target

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._call(name, target, args, kwargs)

        return call

    async def _call(self, name: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.died.is_set():
            await asyncio.sleep(3600)  # a dead process asks nothing and hears nothing
        if name == self.method:
            self.calls += 1
        if name != self.method or self.calls != self.at:
            return await target(*args, **kwargs)
        self.fired += 1
        if self.mode == "error_before":
            raise StoreUnavailable("injected: nothing was done")
        if self.mode == "die_before":
            self.died.set()
            await asyncio.sleep(3600)
        await target(*args, **kwargs)
        if self.mode == "die_after":
            self.died.set()
            await asyncio.sleep(3600)
        raise StoreUnavailable("injected: done, but the answer was lost", outcome="unknown")

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        if self.died.is_set() and asyncio.current_task() is not None and not _is_engine_loop():
            raise StoreUnavailable("injected: this process is dead")
        return cast(list[Result], await self._call("commit", self.inner.commit, (transitions,), {}))


def _is_engine_loop() -> bool:
    """False on the thread that renews the lease: a dead process renews nothing, and its thread must end."""
    return threading.current_thread().name != "derecho-lease"


async def abandon(engine: Any) -> None:
    """Leave an engine as SIGKILL would: nothing is handed back, nothing is flushed."""
    engine.lease.stop()
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
    engine.client._watcher.close()
