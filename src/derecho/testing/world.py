"""Engines on a store whose clock jumps: what an environment, and each trial of the crash explorer, is made of.

Time stands still while anything is under way. When everything waits it may jump to the next instant at which something
is due: a timer, a timeout, a retry.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from derecho.callbacks import CALLBACK
from derecho.clock import FOREVER, SECOND
from derecho.engine.blocking import Blocker
from derecho.engine.engine import Engine
from derecho.engine.registry import Registry
from derecho.engine.runs import LiveRun
from derecho.engine.steps import StepRunner
from derecho.errors import WorkflowBlocked
from derecho.invocation import Definition
from derecho.journal.changes import BuryWorker, RenewWorker
from derecho.journal.model import RunFilter, RunRow
from derecho.journal.payloads import Codec, Converter
from derecho.journal.store import Store
from derecho.testing.clock import VirtualClock
from derecho.testing.observed import ObservedStore, as_store, is_quiet
from derecho.testing.reach import reachable
from derecho.testing.stubs import Missing, Stubs
from derecho.workflow import WorkflowDefinition

LEASE = 1e9
"""Seconds: no jump of the clock makes an engine look dead."""

HANGS_AFTER = 0.2
"""Real seconds after which a stub that still waits is taken to hang, so that its timeouts come."""

STUCK_AFTER = 2.0
"""Real seconds for which a result may be awaited while nothing can happen any more."""

_IN_A_ROW, _MANY_IN_A_ROW = 4, 200
"""Turns of the event loop for which everything must wait: what is known to one task reaches the next one later.
Many when stubs are under way, which may be slow and not hang."""


class KitRegistry(Registry):
    """Finds everything that workflow code can ask for; activities are what `stubs` says."""

    def __init__(self, converter: Converter, stubs: Stubs) -> None:
        super().__init__(converter)
        self._stubs = stubs
        self._seen = {"default"}
        self.stubbed: set[str] = set()

    def know(self, definition: Definition) -> None:
        """A workflow, and all that its code names."""
        for item in reachable(definition):
            if isinstance(item, WorkflowDefinition):
                if item.name not in self.workflows and item.name in self._stubs.children:
                    self.add_workflow(self._stubs.children[item.name])
                elif not item.is_reference and item.version not in self.workflows.get(item.name, {}):
                    self.add_workflow(item)
            elif item.name not in self._stubs.known:
                self._stubs.meet(item)  # type: ignore[arg-type]  # a definition is one of the two

    def activity(self, name: str, queue: str) -> Any:
        if queue == CALLBACK:
            return None
        self._seen.add(queue)
        self.activities[name] = self._stubs.definition(name)
        return self.activities[name]

    def find(self, workflow_type: str, version: int) -> WorkflowDefinition | str:
        return self._stubs.children.get(workflow_type) or super().find(workflow_type, version)

    def kinds(self) -> list[str]:
        return [*super().kinds(), *self.stubbed]

    def queues(self) -> frozenset[str]:
        return frozenset(self._seen)


class _TellingBlocker(Blocker):
    """Tells the world of a blocked run, with the error."""

    def __init__(self, engine: Engine, tell: Callable[[str, str, str, Exception | None], None]) -> None:
        super().__init__(engine)
        self._tell = tell

    def block(self, run: LiveRun, error: Exception) -> None:
        super().block(run, error)
        self._tell(run.identity.workflow_id, run.identity.run_id, str(error) or repr(error), error)

    def block_row(self, row: RunRow, reason: str) -> None:
        super().block_row(row, reason)
        self._tell(row.workflow_id, row.run_id, reason, None)


class _VirtualSteps(StepRunner):
    """A step waits for its next attempt by the virtual clock."""

    world: "World"

    async def _rest(self, micros: int) -> None:
        await self.world.rest(micros)


class World:
    """A store, its clock, and the engines on it. `failure` is what the test is to be told next.

    `new_store` makes an empty store on a clock; `stubs` says what activities do.
    """

    def __init__(
        self,
        new_store: Callable[[VirtualClock], Store],
        clock: VirtualClock,
        stubs: Stubs,
        resources: Mapping[type[Any], Any],
        codec: Codec | None,
        **options: Any,
    ) -> None:
        self.clock = clock
        self.store = new_store(clock)
        self.stubs = stubs
        self.converter = Converter(codec)
        self.registry = KitRegistry(self.converter, stubs)
        self.failure: BaseException | None = None
        self.changes = 0
        self._resources = resources
        self._codec = codec
        self._options = options
        self._engines: list[tuple[Engine, ObservedStore]] = []
        self._instants: list[int] = []
        self._resting = 0
        self._pulse = asyncio.Event()

    # --- engines -----------------------------------------------------------------------------------------------------

    def new_engine(self, store: Any = None, **options: Any) -> Engine:
        """An engine that has not begun; on `store` if that is another face of this world's store."""
        observed = ObservedStore(store or self.store, self._pulse.set, self.changed, self.due, self._created)
        options = {"lease": LEASE, "shutdown_timeout": 0.0, "deadlock_timeout": 10.0, **self._options, **options}
        engine = Engine(as_store(observed), resources=self._resources, codec=self._codec, **options)
        engine.registry = self.registry
        return engine

    async def begin(self, engine: Engine) -> None:
        """Let an engine work."""
        await engine.__aenter__()
        engine.workflows.blocker = _TellingBlocker(engine, self._blocked)
        steps = engine.workflows.steps = _VirtualSteps(engine, engine.workflows.direct)
        steps.world = self
        self._engines.append((engine, engine.store))  # type: ignore[arg-type]  # `new_engine` made it

    def lose(self, engine: Engine) -> None:
        """An engine works no more, or nobody is to wait for it."""
        self._engines = [item for item in self._engines if item[0] is not engine]

    async def expire(self, engine: Engine) -> None:
        """Let the lease of an engine run out, here and now, without any time passing; who looks next buries it."""
        worker = engine.incarnation
        await self.store.commit([(RenewWorker(worker, self.store.now()),), (BuryWorker(worker),)])

    async def close(self) -> None:
        for engine, _ in self._engines:
            await engine.__aexit__(None, None, None)
        self._engines.clear()
        await self.store.close()

    def drop(self) -> None:
        """End the threads of engines whose event loop is gone."""
        for engine, _ in self._engines:
            engine.lease.stop()
            engine.workflows.turns.close()
            engine.activities.threads.close()
        self._engines.clear()
        asyncio.run(self.store.close())

    # --- what engines tell -------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something was written, or began or ended."""
        self.changes += 1
        self._pulse.set()

    def due(self, at: int) -> None:
        """Something will be due at an instant that the store's looks do not tell."""
        heapq.heappush(self._instants, at)

    def fail(self, error: BaseException) -> None:
        """The test is to be told; the first failure counts, what follows follows from it."""
        if self.failure is None:
            self.failure = error
        self.changed()

    def _created(self, row: RunRow) -> None:
        workflow_type = row.workflow_type
        if workflow_type in self.stubs.children:
            self.registry.stubbed.add(row.kind)
            self.store.hint("runs")
        if workflow_type not in self.stubs.children and workflow_type not in self.registry.workflows:
            known = ", ".join(repr(name) for name in sorted(self.registry.workflows))
            self.fail(
                Missing(
                    f"a workflow {workflow_type!r} was started whose code this test does not know: "
                    f"env.stub_child({workflow_type!r}, value), or env.use_real(workflow). Known: {known}"
                )
            )

    def _blocked(self, workflow_id: str, run_id: str, reason: str, error: Exception | None) -> None:
        blocked = WorkflowBlocked(
            f"workflow {workflow_id!r} is blocked: {reason}", workflow_id=workflow_id, run_id=run_id, reason=reason
        )
        blocked.__cause__ = error
        self.fail(blocked)

    # --- time --------------------------------------------------------------------------------------------------------

    def take_failure(self) -> BaseException | None:
        failure, self.failure = self.failure, None
        return failure

    def is_quiet(self, *, but_attempts: bool = False, of: Engine | None = None) -> bool:
        """Whether everything waits; with `but_attempts`, attempts of activities aside; or one engine alone."""
        return all(
            is_quiet(engine, store, self._resting) and (but_attempts or not engine.activities.running())
            for engine, store in self._engines
            if of is None or engine is of
        )

    async def settle(self, *, but_attempts: bool = False, until: Callable[[], bool] = lambda: False) -> None:
        """Return when everything waits, `until` holds, or a failure is to be told.

        With `but_attempts` attempts that have not ended after a while are not waited for; stubs never are for long.
        """
        in_a_row, since, seen = 0, time.monotonic(), self.changes
        while self.failure is None and not until():
            if self.changes != seen:
                since, seen = time.monotonic(), self.changes
            hangs = time.monotonic() - since > HANGS_AFTER and (but_attempts or self._only_stubs())
            if self.is_quiet(but_attempts=hangs):
                in_a_row += 1
                if in_a_row >= (_MANY_IN_A_ROW if hangs else _IN_A_ROW):
                    return
                await asyncio.sleep(0)
            else:
                in_a_row = 0
                await self._next_pulse()

    def _only_stubs(self) -> bool:
        return sum(len(engine.activities.running()) for engine, _ in self._engines) <= self.stubs.under_way

    async def _next_pulse(self) -> None:
        self._pulse.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):  # not all that ends says so
                await self._pulse.wait()

    async def jump(self, latest: int = FOREVER) -> bool:
        """Move the clock to the next instant at which something is due; False when there is none up to `latest`."""
        at = await self._next_instant()
        if at is None or at > latest or not self.is_quiet(but_attempts=True):
            return at is not None and at <= latest
        self.clock.advance(at - self.clock.now())
        return True

    async def advance(self, micros: int) -> None:
        """Let time pass, stopping at each instant at which something is due; returns when everything waits again."""
        target = self.store.now() + micros
        await self.settle(but_attempts=True)
        while self.failure is None and await self.jump(target):
            await self.settle(but_attempts=True)
        if self.failure is None:
            self.clock.advance(max(0, target - self.clock.now()))
            await self.settle(but_attempts=True)

    async def _next_instant(self) -> int | None:
        now = self.store.now()
        due, overdue = await self.store.due_timers(1), await self.store.overdue(1)
        leases = {row.lease_until for row in await self.store.workers()}
        while self._instants and self._instants[0] <= now:
            heapq.heappop(self._instants)
        instants = [*self._instants[:1], due.next_at, None if overdue.next_at in leases else overdue.next_at]
        return min((at for at in instants if at is not None and at > now), default=None)

    async def rest(self, micros: int) -> None:
        """Wait by the virtual clock, in a step."""
        self._resting += 1
        self.changed()
        try:
            await self.sleep(micros)
        finally:
            self._resting -= 1

    async def sleep(self, micros: int) -> None:
        """The same for somebody outside the engines, whom nobody waits for."""
        until = self.store.now() + micros
        self.due(until)
        while (mark := self.store.seen("timers")) is not None and self.store.now() < until:
            await self.store.wait("timers", mark, 3600.0)

    # --- what stands still -------------------------------------------------------------------------------------------

    async def describe_waiting(self) -> str:
        """What the open runs wait for, for people."""
        lines = []
        for row in await self.store.list_runs(RunFilter(limit=50)):
            if row.is_open:
                lines.append(f"  {row.workflow_type} {row.workflow_id!r}: {await self._waits_for(row)}")
        return "\n".join(lines) or "  there is no open run"

    async def _waits_for(self, row: RunRow) -> str:
        pending = await self.store.pending(row.run_id)
        found = [
            "a callback" if item.queue == CALLBACK else f"activity {item.name!r}" for item in pending.activities
        ] + [f"a timer in {(item.fire_at - self.store.now()) / SECOND:g} s" for item in pending.timers]
        for engine, _ in self._engines:
            run = engine.workflows.runs.get(row.run_id)
            if run is not None and run.execution is not None:
                found += [f"signal {name!r}" for name, buffer in run.execution.signals.items() if buffer._receivers]
        return ", ".join(found) or "something that nobody does: a signal, a condition, a channel of its own"
