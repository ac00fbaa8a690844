"""The engine: the four workers on one store, and the client that speaks to it.

engine = Engine("sqlite:///orders.db", workflows=[order], activities=[charge])
async with engine:
    await engine.client.run(order.bind(...), id="order-42")
"""

import asyncio
import logging
import os
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from derecho.activity import ActivityDefinition
from derecho.client import Client
from derecho.clock import SECOND, Duration, micros
from derecho.collector import relaxed
from derecho.committer import Committer, Done
from derecho.engine.activity_worker import ActivityWorker
from derecho.engine.interrupts import told_by_signals
from derecho.engine.lease import Lease
from derecho.engine.neighbours import own_name
from derecho.engine.outcomes import hand_back
from derecho.engine.registry import Registry
from derecho.engine.resources import open_resources
from derecho.engine.runs import LiveRun
from derecho.engine.slots import Slots
from derecho.engine.timer_worker import TimeoutWorker, TimerWorker
from derecho.engine.workflow_worker import WorkflowWorker
from derecho.errors import DefinitionError, StoreError
from derecho.invocation import check_name
from derecho.journal import changes as ch
from derecho.journal import events as ev
from derecho.journal.model import OverdueActivity
from derecho.journal.payloads import DEFAULT_PAYLOAD_LIMIT, Codec, Converter
from derecho.journal.policies import RetryPolicy
from derecho.journal.store import R, Store, Taken
from derecho.outages import until_answered
from derecho.queues import Queue
from derecho.retention import SHORTEST, RetentionWorker
from derecho.stores import open_store
from derecho.unserved import Lookout
from derecho.workflow import WorkflowDefinition

T = TypeVar("T")

log = logging.getLogger("derecho.engine")

_SELDOM, _SOON = 10.0, 1.0
"""Seconds between looks that no hint asks for: when nothing is due; and when something is, but was not to be had."""


class Engine:
    """Runs workflows and activities. Several engines, in one process or many, may share a store.

    Args:
        store: a store, or a URL such as "sqlite:///orders.db"; then the engine opens and closes it.
        worker_id: a name for people; claims never depend on it. The default one also lets the next engine on this
            machine see that its process has died, and take over without waiting for the lease (Linux).
        resources: objects by type, for `current_activity().resource(T)`; or factories of them (a function that gives
            the object, an awaitable, a context manager), opened when the engine starts and closed when it stops.
        queues: the queues to take work from; by default "default" and those that the definitions name.
        max_concurrent_activities: attempts at once. max_processes: those in child processes; one per CPU by default.
        payload_limit: bytes that one encoded value may have, 4 MiB by default.
        default_retry_policy: for activities that name none; by default 1 s doubling to 100 s, without end.
        cache_size: sleeping runs kept in memory.
        lease: seconds after which a dead engine's work is taken over.
        deadlock_timeout: seconds for which workflow code may hold its thread; None does not watch.
        shutdown_timeout: seconds that running activities get to end by themselves.
        retention: how long closed runs are kept, at least a minute; then they are deleted. None keeps them for ever.
    """

    def __init__(
        self,
        store: Store | str,
        *,
        workflows: Sequence[WorkflowDefinition] = (),
        activities: Sequence[ActivityDefinition] = (),
        worker_id: str | None = None,
        resources: Mapping[type[Any], Any] | None = None,
        default_retry_policy: RetryPolicy | None = None,
        codec: Codec | None = None,
        queues: Sequence[Queue] | None = None,
        max_concurrent_activities: int = 100,
        max_processes: int | None = None,
        cache_size: int = 1000,
        lease: Duration = 10.0,
        deadlock_timeout: Duration | None = 2.0,
        shutdown_timeout: Duration = 30.0,
        payload_limit: int = DEFAULT_PAYLOAD_LIMIT,
        retention: Duration | None = None,
    ) -> None:
        self._owns_store = isinstance(store, str)
        self.store: Store = open_store(store) if isinstance(store, str) else store
        self.converter = Converter(codec, payload_limit)
        self.registry = Registry(self.converter, queues, workflows, activities)
        max_processes = os.cpu_count() or 1 if max_processes is None else max_processes
        limits = {"max_concurrent_activities": max_concurrent_activities, "max_processes": max_processes}
        for name, most in {**limits, "cache_size": cache_size}.items():
            least = int(name in limits)
            if not isinstance(most, int) or most < least:
                raise DefinitionError(f"{name} must be at least {least}, and a whole number, not {most!r}")
        self.worker_id = own_name() if worker_id is None else check_name(worker_id, "worker")
        self.incarnation = secrets.token_hex(16)
        default_retry_policy = default_retry_policy or RetryPolicy()
        self.default_retry, self.default_retry_if = default_retry_policy.stored, default_retry_policy.retry_if
        self._resources = dict(resources or {})
        self._opened = AsyncExitStack()
        self._slots = max_concurrent_activities, max_processes
        self._cache_size = cache_size
        self._lease_seconds = _seconds("lease", lease)
        self._deadlock_timeout = None if deadlock_timeout is None else _seconds("deadlock_timeout", deadlock_timeout)
        self._shutdown_timeout = micros(shutdown_timeout) / SECOND
        self._retention = None if retention is None else micros(retention)
        if self._retention is not None and self._retention < SHORTEST:
            raise DefinitionError(f"retention must be at least a minute, not {retention!r}; None keeps runs for ever")
        self.poll_interval = min(_SELDOM, self._lease_seconds)
        self.committer = Committer(self.store, self.release_uncertain)
        self.client = Client(self.store, _host=self, _committer=self.committer, _converter=self.converter)
        self.lookout = Lookout(self.client)
        self._claims = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._running = False
        self._interrupted: asyncio.Event | None = None

    def register_workflow(self, workflow: WorkflowDefinition) -> None:
        """Add a workflow; before the engine runs, or while it does."""
        self.registry.add_workflow(workflow)
        self._registered()

    def _registered(self) -> None:
        """Tell the others what this engine serves now, and look for work of the new kind."""
        if self._running:
            self._tasks.append(asyncio.create_task(self._register()))

    async def _register(self) -> None:
        """Whoever is not registered gets no work: look for it when that is done."""
        await self.lease.register()
        self.store.hint("runs")
        self.store.hint("activities")

    def register_activity(self, activity: ActivityDefinition) -> None:
        """Add an activity; before the engine runs, or while it does."""
        self.registry.add_activity(activity)
        self._registered()

    # --- running -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        await self._stop()

    async def run(self) -> None:
        """Work until cancelled, or until SIGINT or SIGTERM when this is the main thread; drains before it returns.

        A second signal ends the drain; what is left is found again by its lease.
        """
        self._interrupted = asyncio.Event()
        await self._start()
        try:
            with told_by_signals(self._interrupted):
                await self._interrupted.wait()
        finally:
            await self._stop()

    def actor(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], Callable[[], None]]:
        """`(execute, interrupt)` for a group of actors: `execute` runs the engine, `interrupt` makes it return."""
        loop: list[asyncio.AbstractEventLoop] = []
        interrupted = threading.Event()

        async def execute() -> None:
            loop.append(asyncio.get_running_loop())
            self._interrupted = stop = asyncio.Event()
            if interrupted.is_set():
                return
            async with self:
                await stop.wait()

        def interrupt() -> None:
            interrupted.set()
            if loop and self._interrupted is not None:
                with suppress(RuntimeError):  # it has returned, and its loop is closed
                    loop[0].call_soon_threadsafe(self._interrupted.set)

        return execute, interrupt

    async def _start(self) -> None:
        if self._running or self.committer.is_closed:
            raise DefinitionError("this engine is running already, or has stopped: make another one on the same store")
        store = self.store
        try:
            if self._owns_store:
                self._opened.push_async_callback(store.close)
            await store.open()
            self._opened.enter_context(relaxed())
            resources = await open_resources(self._resources, self._opened)
            self._running = True
            self.incarnation = secrets.token_hex(16)
            self.workflows = WorkflowWorker(self, self._cache_size, self._deadlock_timeout)
            self.activities = ActivityWorker(self, Slots(*self._slots, lambda: store.hint("activities")), resources)
            self.lease = Lease(self, self._lease_seconds)
            await self.workflows.blocker.try_again()
            await self.lease.take()  # last, because its thread lives until we stop
        except BaseException:
            self._running = False
            await self._opened.aclose()
            raise
        self._timeouts = TimeoutWorker(self)
        work = [self.workflows.work, self.activities.work, TimerWorker(self).work, self._timeouts.work]
        work += [self.lease.keep, self.activities.watch, self.lookout.work]
        if self._retention is not None:
            work.append(RetentionWorker(self, self._retention).work)
        self._tasks = [asyncio.create_task(self._guard(job), name=f"derecho-{job.__qualname__}") for job in work]
        log.info("engine %s works on %s", self.worker_id, self.store.url)

    async def _stop(self) -> None:
        """Take nothing new, let attempts end, commit what is in hand, give everything back."""
        if not self._running:
            return
        self._running = False
        self.activities.draining = True
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self.activities.drain(self._shutdown_timeout)
            await self.workflows.close(self._shutdown_timeout)
            self.committer.submit((ch.RetireWorker(self.incarnation),), lambda _: None)
            await self.committer.close(timeout=5.0)
        finally:  # whoever cuts this short leaves work behind, which must come free
            self.lease.stop()
            await self.committer.close(timeout=0.0)
            await self.client.close()
            await self._opened.aclose()
        log.info("engine %s has stopped", self.worker_id)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """A worker never ends by an error: it is logged, and the worker begins again."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("a worker of engine %s failed and begins again", self.worker_id)
                await asyncio.sleep(0.5)

    # --- what the workers share --------------------------------------------------------------------------------------

    def submit(self, transition: ch.Transition, done: Done) -> None:
        if not self.committer.is_closed:  # else a stop was cut short: what ends now is found again by its lease
            self.committer.submit(transition, done)

    async def persist(self, call: Callable[[], Awaitable[T]], what: str, *, refusable: bool = False) -> T:
        """Ask the store until it answers; a claim of unknown outcome makes this engine start over as a new one.

        When `refusable`, a StoreError that is no outage is an answer, and raised.
        """
        lost = self.lost_lease if what.startswith("claim") else None
        return await until_answered(self.committer.outage, call, what, lost, refusable=refusable)

    def new_claim(self) -> str:
        """A token that no other claim ever had: 128 random bits of this start of the engine, and a number."""
        self._claims += 1
        return f"{self.incarnation}.{self._claims}"

    def until(self, at: int | None = None) -> float:
        """Seconds to wait for an instant, at most until it is time to look again without a hint."""
        poll = self.beat(self.poll_interval)
        return poll if at is None else min(poll, max(0.0, (at - self.store.now()) / SECOND))

    def beat(self, interval: float) -> float:
        """Seconds to the next multiple of an interval.

        It is the same instant for all workers of a process, which so wakes once for all of them when it idles.
        """
        return interval - asyncio.get_running_loop().time() % interval

    def until_next(self, taken: Taken[R], asked_at: int) -> float:
        """Seconds to wait after a claim: none when it got something, because the next instant is not known then.

        What was due when it was asked for, and was not to be had, is left to somebody else: we look again soon.
        """
        if taken.rows:
            return 0.0
        if taken.first_at is None or taken.first_at > asked_at:
            return self.until(taken.first_at)
        return min(self.until(), _SOON)

    def lost_lease(self) -> None:
        """Declared dead, or not knowing what it claimed: the engine forgets all claims and goes on under a new name.

        Attempts that have begun are lost, as if it had died; what has not begun is handed back.
        """
        if not self._running:
            return
        log.warning("engine %s had lost its lease: it drops its claims and goes on", self.worker_id)
        old, self.incarnation = self.incarnation, secrets.token_hex(16)
        for attempt in self.activities.running():
            if attempt.has_begun:
                self._timeouts.judge(OverdueActivity(attempt.row, lost=True))
        self.activities.abandon_all()
        self.workflows.abandon_all()
        busy = [run for run in self.workflows.runs if run.busy]
        self._tasks += [asyncio.create_task(self._retire(old, busy)), asyncio.create_task(self._register())]

    async def _retire(self, old: str, runs: Sequence[LiveRun]) -> None:
        """Give back what was held under an old name, behind the results that are on their way."""
        give_up_at = time.monotonic() + self._lease_seconds
        try:
            while any(run.busy for run in runs) and time.monotonic() < give_up_at:  # noqa: ASYNC110  # a few, and rarely
                await asyncio.sleep(0.002)
        finally:
            self.submit((ch.RetireWorker(old),), lambda _: None)

    def release_uncertain(self, transition: ch.Transition, result: ch.Result | None) -> None:
        """An answer was lost, so claims that were made on the way may be held without our knowing: give them back.

        When it was sent again and took effect then, only messages that had entered already are in doubt.
        """
        if self.committer.is_closed:
            return  # they come free with the engine's row
        doubtful: Iterable[ch.Change] = transition
        if isinstance(result, ch.Receipt) and not result.repeated:
            delivers = [change for change in transition if isinstance(change, ch.Deliver)]
            told = zip(delivers, result.delivered, strict=True)
            doubtful = [change for change, (_, number, _) in told if not number]
        for change in doubtful:
            claim, run_id = None, None
            if isinstance(change, ch.CreateRun):
                claim, run_id = change.row.claim, change.row.run_id
            elif isinstance(change, ch.Deliver):
                claim, run_id = change.claim, change.run_id
                if claim is not None and change.workflow_id is not None and self._running:
                    self._tasks.append(asyncio.create_task(self._release_of(change.workflow_id, claim)))
            elif isinstance(change, ch.Advance) and not isinstance(result, ch.Receipt):
                claim, run_id = change.take, change.run_id
            elif isinstance(change, ch.ScheduleActivity) and change.row.claim is not None:
                self.submit((hand_back(change.row, self.store.now()),), lambda _: None)
            if claim is not None and run_id is not None:
                self.submit((ch.ReleaseRun(run_id, claim),), lambda _: None)

    async def _release_of(self, workflow_id: str, claim: str) -> None:
        """Give a claim back of which only the workflow id is known: the run may have left memory meanwhile."""
        row = await self.persist(lambda: self.store.find_run(workflow_id), "look for a claimed run")
        if row is not None and row.claim == claim:
            self.submit((ch.ReleaseRun(row.run_id, claim),), lambda _: None)

    # --- for the client (see client.Host) ----------------------------------------------------------------------------

    def begin(self, create: ch.CreateRun, facts: Sequence[ev.Fact]) -> Coroutine[Any, Any, ch.Result] | None:
        row = create.row
        if not self._running or self.workflows.runs.find(row.workflow_id) is not None:
            return None
        definition = self.registry.find(row.workflow_type, row.version)
        if isinstance(definition, str):
            self.lookout.missed(row)
            return None
        return self.workflows.births.begin(definition, create, facts)

    def warm_claim(self, workflow_id: str, run_id: str | None) -> tuple[str, str] | None:
        run = self.workflows.runs.find(workflow_id) if self._running else None
        if run is None or (run_id is not None and run.identity.run_id != run_id):
            return None
        claim = self.workflows.warm_claim(run.identity.run_id)
        return None if claim is None else (self.incarnation, claim)

    def message_delivered(self, receipt: ch.Receipt, claim: str | None, fact: ev.Fact) -> None:
        for run_id, number, claimed in receipt.delivered:
            if number and self._running:
                self.workflows.delivered(run_id, number, claim if claimed else None, fact)

    def arrived(self, fact: ev.Fact, result: ch.Result | StoreError) -> None:
        """A worker of this engine put a message into an inbox: a run that is held here, for its steps, sees it now."""
        if isinstance(result, ch.Receipt) and not result.repeated:
            self.message_delivered(result, None, fact)

    def run_gone(self, run_id: str) -> None:
        if self._running:
            self.workflows.forget(run_id)

    def holds(self, run_id: str) -> bool:
        return self._running and self.workflows.runs.get(run_id) is not None


def _seconds(name: str, duration: Duration) -> float:
    value = micros(duration) / SECOND
    if value <= 0:
        raise DefinitionError(f"{name} must be longer than nothing, not {duration!r}")
    return value
