"""One trial of the crash explorer: a whole run on a store of its own, with a fault at one place.

An engine that dies is left as SIGKILL would leave it; its lease runs out without any time passing, and another engine
takes over. So what the run gives must be what it gives without faults.
"""

import asyncio
import operator
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar, cast

import msgspec

from derecho.audit import audit
from derecho.client import Client
from derecho.clock import Duration, micros
from derecho.committer import Committer
from derecho.engine.engine import Engine
from derecho.errors import WorkflowCancelled, WorkflowFailed, WorkflowNotFound, WorkflowTerminated
from derecho.handle import Handle
from derecho.history import History
from derecho.invocation import Invocation
from derecho.journal.model import RunFilter
from derecho.journal.store import Store
from derecho.regression import replay
from derecho.testing.clock import VirtualClock
from derecho.testing.faults import LATE, FaultyStore, Mode, abandon
from derecho.testing.histories import check_history
from derecho.testing.starting import seeded_run_id, start
from derecho.testing.stubs import Stubs
from derecho.testing.world import HANGS_AFTER, World
from derecho.workflow import WorkflowDefinition

R = TypeVar("R")

_PATIENCE = 30.0
"""Real seconds for which the result of a closed run is waited for."""

Action = Literal[
    "die_before",
    "die_after",
    "error_before",
    "error_after",
    "twice",
    "late",
    "pause_before",
    "pause_after",
    "cancel",
    "evict",
]

_MODES: Mapping[Action, Mode] = {
    "die_before": "die_before",
    "die_after": "die_after",
    "error_before": "error_before",
    "error_after": "error_after",
    "twice": "twice",
    "late": "late",
    "pause_before": "before",
    "pause_after": "after",
    "cancel": "after",
    "evict": "after",
}


class CrashPoint(NamedTuple):
    """What happens, and at which call of the store: `die_after:commit:7` is the death after the seventh commit."""

    action: Action
    method: str
    at: int

    def __str__(self) -> str:
        return f"{self.action}:{self.method}:{self.at}"

    @classmethod
    def parse(cls, text: str) -> "CrashPoint":
        action, method, at = text.split(":")
        if action not in _MODES:
            raise ValueError(f"{text!r} is no crash point: {action!r} is none of {', '.join(_MODES)}")
        return cls(cast(Action, action), method, int(at))


class SteeredRun(Handle[R]):
    """The run of a trial, for what steers it from outside: a handle, and sleep on the virtual clock."""

    _world: World
    asleep = False

    async def sleep(self, duration: Duration) -> None:
        """Let the run go on for so long."""
        self.asleep = True
        try:
            await self._world.sleep(micros(duration))
        finally:
            self.asleep = False


Drive = Callable[[SteeredRun[Any]], Coroutine[Any, Any, None]]
"""Steers a run from outside; time stands still while it does something."""


class Plan(NamedTuple):
    """What all trials have in common. `drive` steers the run from outside: signals, a cancel."""

    call: Invocation[Any]
    id: str
    seed: int
    new_store: Callable[[VirtualClock], Store]
    start_at: int
    stubs: Stubs
    resources: Mapping[type[Any], Any]
    signals: Sequence[tuple[Any, Any]]
    same: Callable[[Any, Any], bool] | None
    drive: "Drive | None"
    options: Mapping[str, Any]


class Ending(NamedTuple):
    """How a run ended. `value` is its result, or the error that `Handle.result` raises; `recorded` the same as JSON."""

    status: str
    value: Any
    recorded: Any

    def is_like(self, other: "Ending", same: Callable[[Any, Any], bool] | None) -> bool:
        """Two errors are alike when class and message are, two results when they are `same`, by default equal."""
        if self.status != other.status:
            return False
        if self.recorded == other.recorded:
            return True
        return not isinstance(self.value, BaseException) and (same or operator.eq)(self.value, other.value)

    def __str__(self) -> str:
        return f"{self.status}: {self.value!r}"


class Trial:
    """`points`: one fault for each engine in turn; those after the last have none."""

    def __init__(self, plan: Plan, points: Sequence[CrashPoint] = ()) -> None:
        self.plan = plan
        self.points = list(points)
        self.fired = 0
        self.attempts = 0
        self.histories: list[History] = []
        self._begun = 0
        self._faults: list[FaultyStore] = []
        self._watching: list[asyncio.Task[None]] = []
        options = dict(plan.options)
        stubs = plan.stubs.fork(lambda error: self.world.fail(error))
        clock = VirtualClock(plan.start_at)
        self.world = World(plan.new_store, clock, stubs, plan.resources, options.pop("codec", None), **options)
        self.world.registry.know(plan.call.definition)

    async def run(self) -> Ending:
        """Raises AssertionError when the run does not end, or its histories are not what they must be."""
        world, plan = self.world, self.plan
        client = Client(world.store, _converter=world.converter)
        await world.store.open()
        handle = await start(client, plan.call, plan.id, seeded_run_id(plan.seed, 1, plan.start_at), plan.signals)
        self._client = client
        ending = asyncio.create_task(self._ending(handle))
        self._steered = SteeredRun[Any](client, plan.id, handle.run_id, None, started=True)
        self._steered._world = world
        driving = asyncio.create_task(plan.drive(self._steered)) if plan.drive is not None else None
        ending.add_done_callback(lambda _: world.changed())
        try:
            await self._work(ending, driving)
            found = await ending
            await self._audit()
            return found
        finally:
            tasks = [ending, *self._watching] if driving is None else [ending, driving, *self._watching]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for faulty in self._faults:
                faulty.at = 0  # from here on it is our shutdown that writes
            self.fired = sum(faulty.fired for faulty in self._faults)
            self.attempts = sum(len(calls) for calls in world.stubs.calls.values())
            await client.close()
            await world.close()

    # --- engines and their ends --------------------------------------------------------------------------------------

    async def _work(self, ending: "asyncio.Task[Ending]", driving: "asyncio.Task[None] | None") -> None:
        """Until the run has ended: replace the dead, let time jump when everything waits."""
        world = self.world
        engine, faulty = await self._begin()
        while not ending.done():
            if faulty.died.is_set():
                await self._bury(engine)
                engine, faulty = await self._begin()
            died = faulty.died
            await world.settle(until=partial(_any, ending.done, died.is_set))
            if world.failure is not None:
                raise world.take_failure() or AssertionError
            if ending.done() or died.is_set() or await self._is_steered(driving):
                continue
            row = await world.store.find_run(self.plan.id)
            if row is not None and not row.is_open:
                await asyncio.wait({ending}, timeout=_PATIENCE)  # its result is on the way
            elif not await world.jump():
                raise AssertionError(f"it does not end; nothing will ever happen:\n{await world.describe_waiting()}")

    async def _is_steered(self, driving: "asyncio.Task[None] | None") -> bool:
        """Whether what steers from outside did something, for which time stands still."""
        if driving is None:
            return False
        seen, committer = self.world.changes, self._client._committer
        patience = time.monotonic() + HANGS_AFTER
        while not (driving.done() or self._steered.asleep) and time.monotonic() < patience:
            await asyncio.wait({driving}, timeout=0.001)
            if isinstance(committer, Committer) and committer._task is not None:
                await committer.flush()
                patience = time.monotonic() + HANGS_AFTER
        if driving.done():
            driving.result()
        return self.world.changes != seen

    async def _begin(self) -> tuple[Engine, FaultyStore]:
        """The next engine, on a store with the next fault."""
        world, number = self.world, self._begun
        self._begun += 1
        point = self.points[number] if number < len(self.points) else CrashPoint("die_before", "none", 0)
        engine: Engine
        faulty = FaultyStore(
            world.store, point.method, point.at, _MODES[point.action], lambda: self._strike(point.action, engine)
        )
        engine = world.new_engine(faulty)
        self._faults.append(faulty)
        beginning = asyncio.create_task(world.begin(engine))
        dying = asyncio.create_task(_tell(faulty.died, world.changed))
        await asyncio.wait({beginning, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not beginning.done():
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)
        else:
            beginning.result()
        self._watching.append(dying)
        return engine, faulty

    async def _bury(self, engine: Engine) -> None:
        self.world.lose(engine)
        await abandon(engine)
        await self.world.expire(engine)

    async def _strike(self, action: Action, engine: Engine) -> None:
        """What happens at a call besides the store's own faults; the call waits for it."""
        world = self.world
        match action:
            case "late":
                world.due(world.store.now() + LATE)
            case "cancel":
                with suppress(WorkflowNotFound):  # it has closed already
                    await self._client.get_by_id(self.plan.id).cancel("cancelled by the explorer")
            case "evict":
                asyncio.get_running_loop().call_soon(_evict, engine, 1000)
            case "pause_before" | "pause_after":
                await self._pause(engine)
            case _:
                raise AssertionError(f"{action} does not strike")

    async def _pause(self, engine: Engine) -> None:
        """The engine stands still past its lease while another one takes over; then it wakes and goes on."""
        world = self.world
        await world.expire(engine)
        other = world.new_engine()
        await world.begin(other)
        while world.failure is None and not world.is_quiet(of=other):
            await world._next_pulse()
        self._watching.append(asyncio.create_task(_wake(engine)))

    # --- what came of it ---------------------------------------------------------------------------------------------

    async def _ending(self, handle: Handle[Any]) -> Ending:
        value: Any
        try:
            status, value = "completed", await handle.result()
        except (WorkflowFailed, WorkflowCancelled, WorkflowTerminated) as exc:
            status, value = type(exc).__name__, exc
        row = await self.world.store.find_run(self.plan.id)
        outcome = msgspec.json.decode(row.outcome or "{}") if row is not None else {}
        failure = outcome.get("failure", {})
        kept = {key: outcome.get(key) for key in ("type", "result", "reason")}
        return Ending(status, value, (kept, failure.get("type"), failure.get("message")))

    async def _audit(self) -> None:
        """Every history of the world is whole, and leads the code to the same commands."""
        world = self.world
        for row in await world.store.list_runs(RunFilter(limit=10_000)):
            rows = (await world.store.load([row.run_id]))[row.run_id]
            history = History.from_rows(row.workflow_id, row.run_id, row.workflow_type, rows)
            self.histories.append(history)
            check_history(history)
            definition = world.registry.find(row.workflow_type, row.version)
            if isinstance(definition, WorkflowDefinition) and len(history):
                replay(definition, history, codec=world.converter.codec)
        violations = await audit(world.store)
        if violations:
            raise AssertionError("\n".join(["the store is not sound:", *map(str, violations)]))


async def _tell(died: asyncio.Event, changed: Callable[[], None]) -> None:
    await died.wait()
    changed()


async def _wake(engine: Engine) -> None:
    """The paused engine tries to renew its lease, and learns that it was declared dead."""
    await engine.lease._renew()


def _evict(engine: Engine, tries: int) -> None:
    """Take all runs out of memory that are between two turns; a run that is busy is waited for."""
    if not engine._running:
        return
    busy = False
    for run in engine.workflows.runs:
        if run.busy or run.loading:
            busy = True
        else:
            engine.workflows._fall_back(run, ())
    if busy and tries:
        asyncio.get_running_loop().call_soon(_evict, engine, tries - 1)


def _any(*conditions: Callable[[], bool]) -> bool:
    return any(condition() for condition in conditions)
