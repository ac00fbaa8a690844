"""A program on a whole engine in virtual time, taken to its end; with evictions, or with a crash at one commit.

The clock moves only when nothing is left to do, and then to the next thing that happens: a timer, the end of an
activity or step, a message from outside. So facts come in one order, however the engine is treated meanwhile.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from derecho import Client, Engine, History, MemoryStore, WorkflowNotFound
from derecho.clock import SECOND
from derecho.journal.changes import RenewWorker, Result, Transition
from derecho.journal.model import RunFilter, RunRow
from tests.properties.machine import Outside, number, run_program
from tests.properties.machine import work as work_activity
from tests.properties.programs import Node
from tests.support.audits import assert_sound
from tests.support.clocks import START, StandingClock

ROOT = "00000000-0000-7000-8000-000000000000"
FOR_EVER = 10**9
STEPS = 3_000


class Unfinished(Exception):
    """A program did not come to its end."""


class Store(MemoryStore):
    """Memory that loses its engine at one commit: before it is applied, or after and before that is known."""

    crash_at: int | None = None
    applied_first = False
    commits = 0
    dead: bool = False
    from_outside = False
    """Set while a client writes: its process is not the one that dies."""

    def __init__(self, clock: StandingClock, changed: asyncio.Event) -> None:
        super().__init__(clock=clock)
        self.changed = changed

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        self.commits += not self.from_outside
        if not self.from_outside and self.commits == self.crash_at:
            if self.applied_first:
                await super().commit(transitions)
            self.dead = True
        await self._hang_if_dead()
        results = await super().commit(transitions)
        self.changed.set()
        return results

    async def claim_runs(self, *arguments: Any, **more: Any) -> Any:
        await self._hang_if_dead()
        taken = await super().claim_runs(*arguments, **more)
        self.changed.set()
        return taken

    async def claim_activities(self, *arguments: Any, **more: Any) -> Any:
        await self._hang_if_dead()
        return await super().claim_activities(*arguments, **more)

    async def _hang_if_dead(self) -> None:
        if self.dead:
            self.changed.set()
            await asyncio.Event().wait()


@dataclass
class Record:
    """What became of a program: how each run ended and what its history says."""

    statuses: dict[str, list[str]] = field(default_factory=dict)
    result: Any = None
    histories: dict[str, list[History]] = field(default_factory=dict)
    ended: set[tuple[str, int, str]] = field(default_factory=set)
    commits: int = 0
    evictions: int = 0
    crashed: bool = False


class Simulation:
    """One program on one store. `crash_at`: the commit at which the first engine dies."""

    def __init__(
        self, program: Node, *, evict: bool = False, crash_at: int | None = None, applied_first: bool = False
    ) -> None:
        self.program = program
        self.changed = asyncio.Event()
        self.clock = StandingClock()
        self.store = Store(self.clock, self.changed)
        self.store.applied_first = applied_first
        self.crash_at = crash_at
        self.record = Record()
        self.evict = evict
        self.gates: dict[tuple[str, str], tuple[int, asyncio.Future[None]]] = {}
        self.outside = [(round(START + 40_000 * SECOND * at + index), kind) for index, (kind, at) in
                        enumerate(program["outside"])]  # fmt: skip

    # --- what activities and steps see

    async def gate(self, kind: str, key: str, at: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates[kind, key] = (max(round(at * SECOND), self.clock.at), future)
        self.changed.set()
        try:
            await future
        finally:
            self.gates.pop((kind, key), None)
            self.changed.set()

    def ended(self, run_id: str, node: Node) -> None:
        self.record.ended.add((run_id, node["id"], node["op"]))

    # --- the run of it

    async def run(self) -> Record:
        Outside.world = self
        with mock.patch("derecho.starts.new_run_id", return_value=ROOT):
            client = Client(self.store)
            await client.start(run_program.bind(self.program, 1), id="root")
        self.engine = await self._start()
        self.store.commits, self.store.crash_at = 0, self.crash_at
        steps = 0
        await self._quiet()
        while any(row.is_open for row in await self._runs()):
            steps += 1
            if steps > STEPS:
                raise Unfinished(f"not at its end after {STEPS} steps")
            await self._happen(client)
            await self._quiet()
        self.store.crash_at = None
        if self.store.dead:
            await self._recover()
        await self._write(client)
        await assert_sound(self.store)
        self.record.crashed = self.store.dead or self.record.crashed
        await self.engine.__aexit__(None, None, None)
        await client.close()
        return self.record

    async def _start(self) -> Engine:
        engine = Engine(
            self.store,
            workflows=[run_program],
            activities=[work_activity],
            cache_size=0 if self.evict else 1000,
            lease=FOR_EVER,
            deadlock_timeout=None,
            shutdown_timeout=0.0,
        )
        await engine.__aenter__()
        evict = engine.workflows.evict

        def counted(run: Any) -> None:
            self.record.evictions += run.execution is not None and run.execution.outcome is None
            evict(run)

        engine.workflows.evict = counted  # type: ignore[method-assign]  # only to count
        return engine

    async def _runs(self) -> list[RunRow]:
        return await self.store.list_runs(RunFilter(limit=10_000))

    async def _happen(self, client: Client) -> None:
        """Move the clock to the next thing that happens, and let it happen."""
        due = (await self.store.due_timers(1)).next_at
        gate = min(((at, key) for key, (at, _) in self.gates.items()), default=None)
        instants = [at for at in (due, gate and gate[0], self.outside and min(self.outside)[0]) if at]
        if not instants:
            raise Unfinished("nothing can happen any more: " + str([row for row in await self._runs() if row.is_open]))
        at = min(instants)
        if self.outside and at == min(self.outside)[0]:
            _, kind = self.outside.pop(self.outside.index(min(self.outside)))
            self.clock.advance((at - self.clock.at) / SECOND)
            handle = client.get(run_program, "root")
            self.store.from_outside = True
            with contextlib.suppress(WorkflowNotFound):
                await (handle.cancel("from outside") if kind == 0 else handle.signal(number, kind))
            self.store.from_outside = False
        elif gate is not None and at == gate[0]:
            self.clock.advance((at - self.clock.at) / SECOND)
            future = self.gates[gate[1]][1]
            if not future.done():
                future.set_result(None)
        else:
            self.clock.advance((at - self.clock.at) / SECOND)

    # --- until there is nothing to do

    async def _quiet(self) -> None:
        calm = 0
        while calm < 3:
            if self.store.dead:
                await self._recover()
            if self._is_quiet():
                calm += 1
                await asyncio.sleep(0)
                continue
            calm = 0
            self.changed.clear()
            if not self._is_quiet():
                try:
                    async with asyncio.timeout(0.02):
                        await self.changed.wait()
                except TimeoutError:
                    self._check_blocked()

    def _is_quiet(self) -> bool:
        workflows, tables = self.engine.workflows, self.store._tables
        if workflows.turns.outstanding or workflows._background or self.engine.committer._task is not None:
            return False
        waiting = {key[1].rpartition("/")[0] for key, (_, future) in self.gates.items() if not future.done()}
        if len(waiting) and any(future.done() for _, future in self.gates.values()):
            return False
        for run in tables.runs.values():
            if not run.is_open:
                continue
            if run.crashes and run.claim is None and workflows._suspects:
                continue  # it waits until another run that a dead engine held has ended its step
            live = workflows.runs.get(run.run_id)
            steps = sum(key[0] == "step" and key[1].startswith(run.run_id) for key in self.gates)
            if run.ready_at is not None and (live is None or not live.steps or len(live.steps) != steps):
                return False
            if live is not None and (live.busy or live.loading or live.facts):
                return False
            rows = tables.activities.get(run.run_id, {}).values()
            gates = sum(key[0] == "activity" and key[1].startswith(run.run_id) for key in self.gates)
            if len(rows) != gates or any(row.cancel_requested for row in rows):
                return False
            if any(row.fire_at <= self.clock.at for row in tables.timers.get(run.run_id, {}).values()):
                return False
        return not any(future.done() for _, future in self.gates.values())

    def _check_blocked(self) -> None:
        for run in self.store._tables.runs.values():
            if run.status == "blocked":
                raise Unfinished(f"{run.workflow_id} is blocked: {run.blocked_reason}")

    # --- a crash

    async def _recover(self) -> None:
        """The engine is dead: nothing of it acts any more. Its lease runs out, and another one takes over."""
        old, self.record.crashed = self.engine, True
        me = asyncio.current_task()
        while others := [task for task in asyncio.all_tasks() if task is not me]:  # what ends may still begin something
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        old.lease.stop()
        lane = old.workflows.turns._lane
        old.workflows.turns.close()
        if lane is not None:
            lane._thread.join()
        for run in old.workflows.runs:
            if run.execution is not None:
                run.execution.close()
        self.gates.clear()
        self.store.dead = False
        await self.store.commit([(RenewWorker(old.incarnation, self.store.now()),)])
        self.engine = await self._start()

    # --- the record

    async def _write(self, client: Client) -> None:
        record = self.record
        record.commits = self.store.commits
        for row in sorted(await self._runs(), key=lambda row: (row.started_at, row.run_id)):
            record.statuses.setdefault(row.workflow_id, []).append(row.status)
            history = await client.get(run_program, row.workflow_id, row.run_id).history()
            record.histories.setdefault(row.workflow_id, []).append(history)
            if row.workflow_id == "root":
                record.result = row.outcome
