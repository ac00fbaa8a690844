"""Blocked runs: what cannot go on is marked with its reason, kept whole, and tried again later.

A reason is a nondeterminism, a missing registration, data that cannot be read, a slip of the code, a deadlock. The run
still takes signals, cancel and terminate; it resumes by itself when fixed code is there.
"""

import logging
from typing import TYPE_CHECKING

from derecho.clock import FOREVER, SECOND
from derecho.engine.runs import LiveRun, unused
from derecho.errors import DeterminismError, NondeterminismError
from derecho.journal.changes import BlockRun
from derecho.journal.model import RunFilter, RunRow
from derecho.journal.store import Store
from derecho.runtime.source import place_of

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

log = logging.getLogger("derecho.engine")

QUARANTINE_AFTER = 3
"""Deaths of workers that held a run, after which no engine runs its code again."""
_LONGEST_PAUSE = 600 * SECOND
_QUARANTINED = FOREVER - 1
"""The instant at which a run in quarantine is tried again by itself."""
_MAX_REASON = 4_000
_MANY = 10_000


class Suspects:
    """The runs held here whose last worker died with them: at most one at a time, so that a death names the guilty."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, run_id: str) -> None:
        self._held.add(run_id)

    def clear(self, run_id: str) -> None:
        """A run is no suspect any more: the next one may be claimed, at once and not at the next poll."""
        if run_id in self._held:
            self._held.remove(run_id)
            self._store.hint("runs")


class Blocker:
    """Writes blocks, each with an ERROR record that says what to do."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._told: dict[str, str] = {}  # run id -> the reason that was logged last

    def block(self, run: LiveRun, error: Exception) -> None:
        identity, reason = run.identity, describe(error)
        trace = None if self._told.get(identity.run_id) == reason else error  # each try logs, the first one at length
        if len(self._told) >= _MANY:
            self._told.clear()
        self._told[identity.run_id] = reason
        log.error("workflow %r is blocked: %s", identity.workflow_id, reason, extra=_extra(identity), exc_info=trace)
        self._write(identity.run_id, run, reason, self._pause(run.blocked_count))

    def block_row(self, row: RunRow, reason: str) -> None:
        log.error("workflow %r is blocked: %s", row.workflow_id, reason, extra=_extra(row))
        self._write(row.run_id, row, reason, self._pause(row.blocked_count))

    def quarantine(self, row: RunRow) -> None:
        reason = (
            f"quarantined: {row.crashes} worker processes died while they held this run. Find out what its code does "
            "to the process, deploy a fix, then send the run a signal (any) to let it go on, or terminate it"
        )
        log.error("workflow %r is %s", row.workflow_id, reason, extra=_extra(row))
        self._write(row.run_id, row, reason, FOREVER)

    def deadlock(self, run: LiveRun, seconds: float, stack: str) -> DeterminismError:
        """The reason for a run whose code holds the workflow thread."""
        line, _, rest = stack.partition("\n")
        reason = (
            f"workflow code held its thread for {seconds:.1f} s at {line}: move what takes long into an activity, "
            "or raise Engine(deadlock_timeout=…)"
        )
        log.error("workflow %r: %s\n%s", run.identity.workflow_id, reason, rest, extra=_extra(run.identity))
        return DeterminismError(reason)

    async def try_again(self) -> None:
        """Let blocked runs go on at once: this engine may have been started because their code was mended."""
        engine, place = self._engine, None
        page = lambda: engine.store.list_runs(RunFilter(status="blocked", before=place))  # noqa: E731  # `place` moves on
        while rows := await engine.persist(page, "look for blocked runs"):
            for row in rows:
                place = row.started_at, row.run_id
                is_ours = not isinstance(engine.registry.find(row.workflow_type, row.version), str)
                if is_ours and row.claim is None and row.ready_at is not None and row.ready_at < _QUARANTINED:
                    self._write(row.run_id, row, row.blocked_reason or "", 0)

    def _write(self, run_id: str, run: LiveRun | RunRow, reason: str, pause: int) -> None:
        retry_at = min(_QUARANTINED, self._engine.store.now() + pause)
        self._engine.submit((BlockRun(run_id, run.head, run.claim, reason[:_MAX_REASON], retry_at),), unused)

    def _pause(self, count: int) -> int:
        return min(_LONGEST_PAUSE, SECOND << min(count, 20))


def describe(error: Exception) -> str:
    """One paragraph for people: what happened and where."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, (NondeterminismError, DeterminismError)):
        return str(error)
    place = place_of(error)
    return f"{text} (at {place})" if place else text


def _extra(run: object) -> dict[str, object]:
    return {name: getattr(run, name) for name in ("workflow_id", "run_id", "workflow_type")}
