"""A whole engine as a process of the simulation: what it does on threads is done on the loop, in its own time."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from derecho import Engine
from derecho.engine.lease import Lease
from derecho.engine.turns import Job
from tests.simulation.loop import Loop, Process
from tests.simulation.network import Line
from tests.simulation.server import Server
from tests.simulation.workload import ACTIVITIES, WORKFLOWS


class SimulatedLease(Lease):
    """Has no thread beside the loop, which nothing blocks."""

    async def take(self) -> None:
        await self.register()


class SimulatedLane:
    """The thread on which workflow code runs: one job after another, each after a while. None holds it."""

    current = (None, 0.0)

    def __init__(self, loop: Any, deliver: Callable[[Any], None]) -> None:
        self.jobs = self
        self.finished: deque[Job] = deque()
        self.abandoned = self.told = False
        self._loop = loop
        self._deliver = deliver
        self.waiting: deque[Job] = deque()
        self._is_busy = False

    def put(self, job: Job | None) -> None:
        if job is not None:
            self.waiting.append(job)
            self._plan()

    def _plan(self) -> None:
        if self.waiting and not self._is_busy:
            self._is_busy = True
            self._loop.call_later(0.001, self._work)

    def _work(self) -> None:
        job = self.waiting.popleft()
        job.run(lambda: None)
        self.finished.append(job)
        if not self.told:
            self.told = True
            self._loop.call_soon(self._deliver, self)
        self._is_busy = False
        self._plan()


class EngineProcess(Process):
    """One life of an engine; a new one takes its place when it has died."""

    def __init__(self, name: str, server: Server, *, lease: float, cache_size: int, late: bool) -> None:
        super().__init__(name)
        self.line = Line(server, self)
        self.late = server.dice.uniform(0.5, 8.0) if late else 0.0
        self.is_mortal = True
        self.was_stopped = False
        self.is_up = False
        self.embedded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.engine = self.context.run(
            Engine,
            self.line,
            workflows=WORKFLOWS[::2] if late else WORKFLOWS,
            activities=ACTIVITIES[::2] if late else ACTIVITIES,
            worker_id=name,
            lease=lease,
            cache_size=cache_size,
            deadlock_timeout=None,
            shutdown_timeout=0.5,
        )

    def start(self, embedded: Callable[["EngineProcess"], Any]) -> None:
        """Everything that it will ever do begins here, in its own context."""
        asyncio.get_running_loop().create_task(self._live(embedded), context=self.context)

    async def _live(self, embedded: Callable[["EngineProcess"], Any]) -> None:
        await self.engine.__aenter__()
        self.is_up = True
        if self.embedded.cancelled():
            return
        acting = asyncio.get_running_loop().create_task(embedded(self))
        acting.add_done_callback(lambda _: self.embedded.cancel())
        self.embedded.add_done_callback(lambda _: acting.cancel())
        if self.late:
            await asyncio.sleep(self.late)
            for workflow in WORKFLOWS[1::2]:
                self.engine.register_workflow(workflow)
            for activity in ACTIVITIES[1::2]:
                self.engine.register_activity(activity)

    def leave(self) -> "asyncio.Task[None]":
        """Stop it as a deploy would."""
        self.embedded.cancel()
        return asyncio.get_running_loop().create_task(self._leave(), context=self.context)

    async def _leave(self) -> None:
        self.is_up = False
        await self.engine.__aexit__(None, None, None)

    def evict_one(self, dice: random.Random) -> bool:
        """Take a sleeping run out of memory."""
        idle = [run for run in self.engine.workflows.runs if run.is_idle]
        if not idle:
            return False
        self.context.run(self.engine.workflows.evict, dice.choice(idle))
        return True

    def take_down(self) -> None:
        """After the end of the simulation: leave no code suspended."""
        if not hasattr(self.engine, "workflows"):
            return
        lane: Any = self.engine.workflows.turns._lane
        for job in () if lane is None else lane.waiting:
            turn = getattr(job, "turn", None)
            if turn is None:
                job.run(lambda: None)
        for run in self.engine.workflows.runs:
            if run.execution is not None:
                run.execution.close()
                run.execution = None


@contextlib.contextmanager
def on_virtual_time(loop: Loop, dice: random.Random) -> Iterator[None]:
    """Threads, clocks and chance of the engine are the simulation's."""
    clock = SimpleNamespace(monotonic=loop.time)
    chance = SimpleNamespace(random=dice.random)
    patches: dict[str, Any] = {
        "derecho.engine.engine.Lease": SimulatedLease,
        "derecho.engine.turns._Lane": SimulatedLane,
        "derecho.engine.lease.time": clock,
        "derecho.engine.workflow_worker.time": clock,
        "derecho.outages.time": clock,
        "derecho.outages.random": SimpleNamespace(uniform=dice.uniform),
        "derecho.engine.steps._random": chance,
        "derecho.engine.outcomes._random": chance,
        "secrets.token_hex": lambda size=8: f"{dice.getrandbits(8 * size):0{2 * size}x}",
        "secrets.randbits": dice.getrandbits,
        "tests.properties.machine.random": chance,
        "tests.properties.machine.seconds": _seconds,
    }
    with contextlib.ExitStack() as stack:
        for target, value in patches.items():
            stack.enter_context(mock.patch(target, value))
        yield


def _seconds(number: int, part: int = 0) -> float:
    from tests.properties.programs import seconds

    return seconds(number, part) / 6_000
