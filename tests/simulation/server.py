"""The store of a simulation and what watches over it: every commit is judged as soon as it is applied."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from derecho import MemoryStore
from derecho.audit import audit, check
from derecho.audit.checks import check_run
from derecho.audit.snapshot import of_memory
from derecho.journal.changes import Advance, CreateRun, DropTimer, Receipt, Result, Transition
from derecho.journal.model import RunRow
from derecho.stores.hints import TOPICS
from derecho.testing.clock import VirtualClock
from tests.simulation.faults import Faults
from tests.simulation.loop import Loop, Process
from tests.simulation.marks import marks_of


class Broken(AssertionError):
    """A promise was not kept."""


class WallClock(VirtualClock):
    """The machine's clock of the server: it goes with the loop, and `advance` makes it jump."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def now(self) -> int:
        return super().now() + round(self._loop.time() * 1_000_000)


class Server:
    """`killed` is called with a process that is to die at its commit."""

    def __init__(self, loop: Loop, dice: random.Random, faults: Faults) -> None:
        self.dice = dice
        self.faults = faults
        self.clock = WallClock(loop)
        self.store = MemoryStore(clock=self.clock)
        bump = self.store._hints.bump
        # Topics are a set there, and sets of texts have another order in every process.
        self.store._hints.bump = lambda topics=TOPICS: bump(sorted(topics))  # type: ignore[method-assign]
        self.process = Process("server")
        self.lines: list[str] = []
        self.marks: Counter[str] = Counter()
        self.calls = 0
        self.killed: Callable[[Process], bool] = lambda process: False
        self.holders: dict[str, str] = {}  # run id -> the worker that held it last
        self._loop = loop
        self._known: dict[str, RunRow] = {}
        self._touched: set[str] = set()
        self._commits = 0
        self._audit_every = dice.choice((1, 2, 5, 10))

    def trace(self, line: str) -> None:
        self.lines.append(f"{self._loop.time():.6f} {line}")

    def mark(self, name: str) -> None:
        self.marks[name] += 1

    async def commit(self, process: Process, batch: Sequence[Transition]) -> list[Result]:
        """Apply a batch, or lose the process that sent it: before, or after."""
        if process.is_mortal and self.faults.strikes("crash before commit", 0.004):
            self.killed(process)
            return []
        before = {change.run_id: change for t in batch for change in t if isinstance(change, DropTimer)}
        fire_at = {run_id: dict(self.store._tables.timers.get(run_id, {})) for run_id in before}
        results = await self.store.commit(batch)
        now = self.store._tables.now
        for transition, result in zip(batch, results, strict=True):
            self._judge(transition, result, now, fire_at)
        for name in marks_of(self, batch, results):
            self.mark(name)
        self._look_at(batch)
        if process.is_mortal and self.faults.strikes("crash after commit", 0.004):
            self.killed(process)
        return results

    def arrived(self, process: Process, name: str, result: Any) -> None:
        self.calls += 1
        if name == "commit":
            verdicts = [getattr(item, "reason", "ok") for item in result or ()]
            self.trace(f"{process.name} commit {len(self.lines)} {verdicts}")
        elif name == "load" and any(result.values()):
            self.mark("a run was rebuilt from its history")
        elif name.startswith("claim") and result.rows:
            self.trace(f"{process.name} {name} {len(result.rows)}")
            if name == "claim_runs":
                for item in result.rows:
                    self._claimed(item.run)

    def _claimed(self, run: RunRow) -> None:
        if run.crashes:
            self.mark("a suspect was claimed")
        if self.holders.get(run.run_id, run.worker) != run.worker:
            self.mark("a run moved to another engine")
        self.holders[run.run_id] = run.worker or ""

    # --- judging -----------------------------------------------------------------------------------------------------

    def _judge(self, transition: Transition, result: Result, now: int, fire_at: dict[str, dict[int, Any]]) -> None:
        if not isinstance(result, Receipt) or result.repeated:
            return
        for change in transition:
            if isinstance(change, DropTimer) and change.must_exist:
                row = fire_at[change.run_id][change.timer]
                if now < row.fire_at:
                    raise Broken(f"timer {row.timer} of {row.run_id} fired {row.fire_at - now} us early")
            elif isinstance(change, (Advance, CreateRun)):
                self._touched.add(change.run_id if isinstance(change, Advance) else change.row.run_id)

    def _look_at(self, batch: Sequence[Transition]) -> None:
        for transition in batch:
            for change in transition:
                run_id = getattr(change, "run_id", None)
                if run_id is not None:
                    self._touched.add(run_id)
        self._commits += 1
        if self._commits % self._audit_every == 0:
            self.look()

    def look(self) -> None:
        """Audit the runs that have been touched: by themselves, and against what they were."""
        snapshot = of_memory(self.store, self._touched)
        self._touched.clear()
        for run in snapshot.runs.values():
            found = check_run(snapshot, run)
            if found:
                raise Broken("\n".join(map(str, found)))
            self._compare(run)

    def _compare(self, run: RunRow) -> None:
        """History is only ever appended to, and what has closed stays as it is."""
        known = self._known.get(run.run_id)
        self._known[run.run_id] = run
        if known is None:
            return
        if not known.is_open and known != run:
            raise Broken(f"run {run.run_id} was {known.status}, and now it is {run}")
        if known.tasks:
            row = self.store._tables.history[run.run_id][known.tasks]
            if row.digest != known.digest:
                raise Broken(f"workflow task {known.tasks} of run {run.run_id} was rewritten")

    def audit(self) -> None:
        """Everything, also what is between runs."""
        found = check(of_memory(self.store))
        if found:
            raise Broken("\n".join(map(str, found)))


__all__ = ["Broken", "Server", "audit"]
