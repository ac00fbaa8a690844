"""A store through which one engine is watched: whether it waits, and for which instants.

An engine waits when each of its workers has looked since the last change and waits for the next one, nothing is being
written, no code of workflows runs and no attempt is under way.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

from derecho.engine.engine import Engine
from derecho.journal.changes import CreateRun, Result, RetryActivity, ScheduleActivity, Transition
from derecho.journal.model import RunRow, Topic
from derecho.journal.store import Store

_WORKERS: dict[Topic, int] = {"runs": 1, "activities": 1, "timers": 2}
"""How many loops of an engine wait for each topic."""


class ObservedStore:
    """Passes everything on to `inner`. `pulse` is called when the engine may wait from now on, `changed` after writes.

    `due` is told each instant at which an activity will be claimable, `created` each run that is started.
    """

    def __init__(
        self,
        inner: Store,
        pulse: Callable[[], None],
        changed: Callable[[], None],
        due: Callable[[int], None],
        created: Callable[[RunRow], None],
    ) -> None:
        self.inner = inner
        self._pulse = pulse
        self._changed = changed
        self._due = due
        self._created = created
        self._waiting: list[tuple[Topic, int]] = []
        self._commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        for change in (change for transition in transitions for change in transition):  # its answer may never come
            if isinstance(change, RetryActivity):
                self._due(change.due_at)
            elif isinstance(change, ScheduleActivity):
                self._due(change.row.due_at)
            elif isinstance(change, CreateRun):
                self._created(change.row)
        self._commits += 1
        try:
            return await self.inner.commit(transitions)
        finally:
            self._commits -= 1
            self._changed()

    async def closed(self, run_ids: Any) -> Any:
        self._pulse()  # somebody waits for a result
        return await self.inner.closed(run_ids)

    async def wait(self, topic: Topic, seen: int, timeout: float) -> None:
        place = topic, seen
        self._waiting.append(place)
        self._pulse()
        try:
            await self.inner.wait(topic, seen, timeout)
        finally:
            self._waiting.remove(place)

    def all_wait(self) -> bool:
        """Whether nothing is being written, and all workers have seen the last change and wait for the next."""
        return not self._commits and all(
            sum(place == (topic, self.inner.seen(topic)) for place in self._waiting) >= loops
            for topic, loops in _WORKERS.items()
        )


def as_store(store: ObservedStore | Any) -> Store:
    """What passes everything on is a store."""
    return cast(Store, store)


def is_quiet(engine: Engine, store: ObservedStore, resting: int) -> bool:
    """Whether an engine does nothing, its attempts aside; `resting` steps wait for their next attempt."""
    committer, workflows = engine.committer, engine.workflows
    return (
        store.all_wait()
        and committer._task is None
        and not committer._queue
        and not workflows._background
        and workflows.turns.outstanding == 0
        and not any(run.busy or run.loading for run in workflows.runs)
        and sum(len(run.steps) for run in workflows.runs) <= resting
    )
