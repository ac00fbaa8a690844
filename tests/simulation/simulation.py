"""One seed: engines, clients, faults and a ledger of what was promised; first unsafe, then healed, then judged.

Everything that happens follows from the seed, to the last message: the same seed gives the same trace.
"""

import asyncio
import gc
import logging
import random
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

import msgspec

import derecho
from derecho import Client, WorkflowError, WorkflowNotFound
from derecho.clock import SECOND
from derecho.journal import events as ev
from derecho.journal.model import RunFilter, RunRow
from derecho.watcher import decode_outcome
from tests.properties import machine
from tests.simulation.actors import Actor
from tests.simulation.engines import EngineProcess, on_virtual_time
from tests.simulation.faults import CHAOS, Faults
from tests.simulation.loop import Loop, Process, State, _process
from tests.simulation.network import Line
from tests.simulation.server import Broken, Server
from tests.simulation.workload import LETTER, STOP, WORKFLOWS, Outside

FAULTS, STEPS = 40, 300
"""What every seed must see: faults that struck, and calls that reached the store."""
UNSAFE_AT_MOST = 400.0
HEALED_WITHIN = 1_500.0
"""Seconds of virtual time."""


class Ledger:
    """What is known outside of the system."""

    def __init__(self) -> None:
        self.started: dict[str, list[str] | None] = {}  # acknowledged: workflow id -> the result, where it is known
        self.letters: dict[str, list[tuple[str, int]]] = defaultdict(list)  # acknowledged, by mailbox
        self.disturbed: set[str] = set()  # workflow ids that somebody cancelled or terminated
        self.attempts: dict[tuple[str, int], set[str]] = defaultdict(set)  # key and number -> engine incarnations
        self.steps: set[tuple[str, str]] = set()


class Simulation:
    """`without` names faults to leave out, for finding out which ones it takes."""

    def __init__(self, seed: int, without: frozenset[str] = frozenset()) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.faults = Faults.draw(random.Random(seed), without)
        self.loop = Loop()
        self.server = Server(self.loop, self.dice, self.faults)
        self.server.killed = self._kill
        self.ledger = Ledger()
        self.engines: list[EngineProcess] = []
        self.graveyard: list[Any] = []
        self.lease = self.dice.choice((3.0, 6.0, 12.0))
        self.failure: BaseException | None = None
        self._names = 0
        self._next_chaos = 200
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- what the workload tells -------------------------------------------------------------------------------------

    def begin(self, activity: Any) -> None:
        """An attempt begins, in its engine's process."""
        row, process = activity._beat.__self__.row, _process.get()
        assert isinstance(process, EngineProcess)
        place = activity.idempotency_key, activity.attempt
        # Under a name that it has given up, what had begun is begun again, as after a restart.
        if row.worker in self.ledger.attempts[place] and row.worker == process.engine.incarnation:
            raise self._broken(f"attempt {place} began twice in one engine")
        self.ledger.attempts[place].add(row.worker or "")
        tables = self.server.store._tables
        now = tables.activity((row.run_id, row.activity))
        if (now is None or now.claim != row.claim) and row.worker in tables.workers and not process.was_stopped:
            done = f'"activity_completed","activity":{row.activity},'
            texts = [task.data for task in tables.history.get(row.run_id, {}).values()]
            if any(done in text for text in (*texts, *tables.inbox.get(row.run_id, {}).values())):
                raise self._broken(f"attempt {place} began after its activity had ended")

    def step(self, run_id: str, name: str) -> None:
        if (run_id, name) in self.ledger.steps:
            self.mark("a step ran again")
        self.ledger.steps.add((run_id, name))

    def mark(self, name: str) -> None:
        self.server.mark(name)

    async def gate(self, kind: str, key: str, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.server.clock.now() / SECOND))

    def ended(self, run_id: str, node: Any) -> None: ...

    def _broken(self, text: str) -> Broken:
        error = Broken(text)
        self.failure = self.failure or error
        return error

    # --- chaos -------------------------------------------------------------------------------------------------------

    def _before_step(self) -> None:
        if self.loop.steps >= self._next_chaos and self.faults.active:
            self._next_chaos = self.loop.steps + self.dice.randint(20, 400)
            kinds = [name for name in CHAOS if name in self.faults.on]
            living = [engine for engine in self.engines if engine.state is State.RUNNING]
            if kinds and living:
                self._strike(self.dice.choice(kinds), self.dice.choice(living))

    def _strike(self, kind: str, engine: EngineProcess) -> None:
        fired = True
        match kind:
            case "crash":
                self._kill(engine)
            case "pause" | "long pause":
                longest = 0.8 if kind == "pause" else 4.0
                self._pause(engine, self.dice.random() * longest * self.lease)
            case "restart" if engine.is_up:
                self._spawn(self._restart(engine))
            case "evict" if engine.is_up:
                fired = engine.evict_one(self.dice)
            case "clock forward":
                self.server.clock.advance(round(self.dice.choice((0.5, 5.0, 60.0)) * SECOND))
            case "clock back":
                self.server.clock.advance(-round(self.dice.choice((0.5, 5.0)) * SECOND))
            case "terminate":
                self._spawn(self._terminate_one())
            case _:
                fired = False
        if fired:
            self.faults.fired[kind] += 1
            self.server.trace(f"{engine.name} {kind}")

    def _kill(self, process: Process) -> bool:
        """The process is gone between two steps; what it kept in memory is kept from the garbage collector."""
        if not isinstance(process, EngineProcess) or process.state is State.DEAD:
            return False
        self.server.trace(f"{process.name} is killed")
        self.graveyard.append((process, process.held, asyncio.all_tasks(self.loop)))
        process.kill()
        self.engines.remove(process)
        self._replace(process, self.dice.random() * 2 * self.lease)
        return True

    def _replace(self, old: EngineProcess, after: float) -> None:
        self.loop.call_later(after, self._start_engine, context=self.server.process.context)

    def _start_engine(self) -> None:
        self._names += 1
        cache = 0 if self.faults.has("no cache") else 2 if self.faults.has("small cache") else 1_000
        late = self.faults.strikes("late registration", 0.5)
        engine = EngineProcess(f"engine-{self._names}", self.server, lease=self.lease, cache_size=cache, late=late)
        self.engines.append(engine)
        engine.start(self._embedded)

    async def _embedded(self, process: EngineProcess) -> None:
        """A client in the process of an engine."""
        try:
            await Actor(self, process.engine.client, f"{process.name}/in").act()
        except Exception as exc:  # which would end the client, and nobody would miss what it does not do
            self.failure = self.failure or exc
            raise

    def _pause(self, engine: EngineProcess, seconds: float) -> None:
        engine.stop()
        engine.was_stopped = True
        incarnation = engine.engine.incarnation

        def resume() -> None:
            if engine.state is State.STOPPED:
                self.server.trace(f"{engine.name} comes back")
                if incarnation not in self.server.store._tables.workers:
                    self.mark("a stopped engine came back after its lease")
                engine.resume()

        self.loop.call_later(seconds, resume, context=self.server.process.context)

    async def _restart(self, engine: EngineProcess) -> None:
        if engine not in self.engines:
            return  # another fault has killed it at this very instant
        self.engines.remove(engine)
        task = engine.leave()
        self.graveyard.append((engine, task))
        self._replace(engine, self.dice.random())
        await task

    async def _terminate_one(self) -> None:
        rows = [row for row in self.server.store._tables.runs.values() if row.is_open]
        if rows:
            row = self.dice.choice(rows)
            self.disturb(row.workflow_id)
            async with Client(self.server.store) as client:
                await client.get_by_id(row.workflow_id).terminate("chaos")

    def disturb(self, workflow_id: str) -> None:
        self.ledger.disturbed.add(workflow_id)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(work, context=self.server.process.context)
        self._tasks.add(task)
        task.add_done_callback(self._note)

    def _note(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self.failure is None:
            self.failure = error

    # --- the phases --------------------------------------------------------------------------------------------------

    def run(self) -> "Simulation":
        """Raises what is wrong; the trace is in `server.lines`."""
        Outside.world = machine.Outside.world = self
        before, level = asyncio.get_event_loop_policy(), logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        gc_was_on = gc.isenabled()
        gc.disable()
        try:
            with on_virtual_time(self.loop, self.dice):
                self.loop.before_step = self._before_step
                try:
                    self.loop.run_until_complete(self._live())
                finally:
                    self.loop.before_step = lambda: None
                    self.loop.run_until_complete(self._bury())
        finally:
            logging.disable(level)
            asyncio.set_event_loop_policy(before)
            self.loop.close()
            if gc_was_on:
                gc.enable()
        return self

    async def _live(self) -> None:
        for _ in range(self.dice.randint(2, 4)):
            self._start_engine()
        clients = [self._client(f"client-{number}") for number in range(2)]
        await self._until_enough()
        self.server.audit()
        await self._heal(clients)
        self.server.look()
        self.server.audit()
        await self._judge()

    def _client(self, name: str) -> "asyncio.Task[None]":
        process = Process(name)
        client = process.context.run(Client, Line(self.server, process))
        return self.loop.create_task(Actor(self, client, name).act(), context=process.context)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        for context in self.loop.errors:
            error = context.get("exception")
            raise Broken(f"asyncio complains: {context['message']}") from error

    async def _until_enough(self) -> None:
        while sum(self.faults.fired.values()) < FAULTS or self.server.calls < STEPS:
            await asyncio.sleep(0.5)
            self._check()
            if self.loop.time() > UNSAFE_AT_MOST:
                raise Broken(f"too little happened: {self.faults.fired}, {self.server.calls} calls")

    async def _heal(self, clients: list["asyncio.Task[None]"]) -> None:
        """Faults are off; a deploy brings engines that serve everything; all must come to its end."""
        self.server.trace("--- heal")
        self.faults.active = False
        for engine in list(self.engines):
            if engine.state is State.STOPPED:
                engine.resume()
        until = self.loop.time() + HEALED_WITHIN
        await asyncio.gather(*clients, *(engine.embedded for engine in self.engines), return_exceptions=True)
        async with Client(self.server.store) as operator:
            while open_runs := [row for row in await self._runs() if row.is_open]:
                self._check()
                if self.loop.time() > until:
                    raise Broken("not at its end: " + "\n".join(map(str, open_runs)))
                for row in open_runs:
                    await self._help(operator, row)
                await asyncio.sleep(1.0)

    async def _help(self, operator: Client, row: RunRow) -> None:
        """What an operator does: tell mailboxes to end, and let runs go on that were quarantined."""
        handle = operator.get_by_id(row.workflow_id)
        try:
            if row.status == "blocked" and (row.blocked_reason or "").startswith("quarantined"):
                await handle.signal(LETTER, ["go on", 0])  # also one that was told to end before it was set aside
            if row.workflow_type == "mailbox":
                await handle.signal(LETTER, STOP, key="stop")
        except WorkflowNotFound:
            pass

    async def _runs(self) -> list[RunRow]:
        return await self.server.store.list_runs(RunFilter(limit=100_000))

    # --- judgement ---------------------------------------------------------------------------------------------------

    async def _judge(self) -> None:
        definitions = {workflow.name: workflow for workflow in WORKFLOWS}
        tables = self.server.store._tables
        left = [name for name in ("activities", "timers", "inbox") if any(getattr(tables, name).values())]
        if left:
            raise Broken(f"all runs have closed, and there are rows in {left}")
        async with Client(self.server.store) as client:
            for row in await self._runs():
                history = await client.history(row.workflow_id, row.run_id)
                derecho.replay(definitions[row.workflow_type], history)
                self._mark_events(row)
            for workflow_id, result in self.ledger.started.items():
                await self._check_result(client, workflow_id, result)
        for workflow_id in self.ledger.letters:
            self._check_letters(workflow_id)

    def _mark_events(self, row: RunRow) -> None:
        names = {
            "signal_delivered": "a signal between runs was delivered",
            "signal_undelivered": "a signal between runs found nobody",
            "child_refused": "a child was refused",
        }
        for task in self.server.store._tables.history[row.run_id].values():
            for kind, name in names.items():
                if f'"{kind}"' in task.data:
                    self.mark(name)

    async def _check_result(self, client: Client, workflow_id: str, result: list[str] | None) -> None:
        try:
            got: Any = await client.get_by_id(workflow_id).result()
        except WorkflowNotFound:
            raise Broken(f"the acknowledged start of {workflow_id} is lost") from None
        except WorkflowError as exc:
            got = exc
        disturbed = any(name.partition("/leaf")[0] == workflow_id for name in self.ledger.disturbed)
        if result is not None and not disturbed and got != result:
            raise Broken(f"{workflow_id} should have ended as {result}, and did as {got!r}")

    def _check_letters(self, workflow_id: str) -> None:
        """Acknowledged letters have come, none twice, those of one sender in order."""
        if workflow_id in self.ledger.disturbed:
            return
        runs = [run for run in self.server.store._tables.runs.values() if run.workflow_id == workflow_id]
        ends = [decode_outcome(run.outcome) for run in runs if run.workflow_type == "mailbox"]
        [outcome] = [end for end in ends if isinstance(end, ev.WorkflowCompleted)]
        got = [tuple(letter) for letter in msgspec.json.decode(outcome.result.raw())]
        if len(set(got)) != len(got):
            raise Broken(f"{workflow_id} got a letter twice: {got}")
        sent = self.ledger.letters[workflow_id]
        if lost := set(sent) - set(got):
            raise Broken(f"{workflow_id} never got {sorted(lost)}, which were acknowledged")
        acknowledged = set(sent)
        for sender in {sender for sender, _ in sent}:
            numbers = [number for name, number in got if name == sender and (name, number) in acknowledged]
            if numbers != sorted(numbers):
                raise Broken(f"{workflow_id} got the letters of {sender} as {numbers}")

    # --- the end -----------------------------------------------------------------------------------------------------

    async def _bury(self) -> None:
        """Leave nothing suspended, for the sake of the next simulation."""
        everybody = {*self.engines, *(item[0] for item in self.graveyard)}
        for engine in everybody:
            engine.context.run(engine.take_down)
        me = asyncio.current_task()
        for _ in range(50):
            for engine in everybody:
                engine.resume()  # only to be cancelled
            tasks = [task for task in asyncio.all_tasks() if task is not me]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            await asyncio.sleep(0)
        for engine in everybody:
            engine.context.run(engine.take_down)


def run(seed: int, without: frozenset[str] = frozenset()) -> Simulation:
    return Simulation(seed, without).run()
