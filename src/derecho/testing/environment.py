"""The environment of a test: the real engine, on a clock that jumps when everything waits.

Time stands still until `advance`, or until a result is awaited; then it jumps to the next instant at which something is
due. So a workflow that sleeps for a year is tested in milliseconds, with its timers in order.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

from derecho.activity import Activity, ActivityDefinition, SyncActivity
from derecho.client import Client
from derecho.clock import from_datetime, micros, to_datetime
from derecho.engine.engine import Engine
from derecho.handle import Handle
from derecho.history import History
from derecho.invocation import Definition, Invocation
from derecho.journal.payloads import Codec
from derecho.journal.policies import RetryPolicy
from derecho.journal.store import Store
from derecho.messages import Signal
from derecho.stores.memory import MemoryStore
from derecho.testing.clock import VirtualClock
from derecho.testing.crashes import CrashReport, Fault, explore, seed_of
from derecho.testing.starting import seeded_run_id, start
from derecho.testing.stubs import ActivityCall, Stub, Stubs, in_order
from derecho.testing.trials import Plan, SteeredRun
from derecho.testing.world import STUCK_AFTER, World
from derecho.workflow import Workflow

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Clocked = Callable[[VirtualClock], Store]
"""Makes an empty store whose time is this clock's: `lambda clock: SQLiteStore(path, clock=clock)`."""


class TestRun(Generic[R]):
    """A workflow that the test started."""

    __test__ = False  # to pytest: this is no test

    def __init__(self, id: str, begin: Callable[[], Coroutine[Any, Any, Handle[R]]]) -> None:
        self.id = id
        self._begin = begin
        self._handle: asyncio.Task[Handle[R]] | None = None

    async def handle(self) -> Handle[R]:
        """The client's handle of this run."""
        return await asyncio.shield(self._start())

    def _start(self) -> "asyncio.Task[Handle[R]]":
        if self._handle is None:
            self._handle = asyncio.get_running_loop().create_task(self._begin())
        return self._handle

    async def result(self) -> R:
        """Wait for the result, and let time jump as far as that takes. Raises as `Handle.result`, and at once when the
        run is blocked, an activity has no stub, or nothing will ever happen."""
        return await (await self.handle()).result()

    async def signal(self, signal: Signal[T], value: T) -> None:
        await (await self.handle()).signal(signal, value)

    async def cancel(self, reason: str = "") -> None:
        await (await self.handle()).cancel(reason)

    async def history(self) -> History:
        return await (await self.handle()).history()


class Environment:
    """The real engine in a test; the fixture `derecho_env` is one.

    Args:
        start_time: an aware datetime; the beginning of 2026 by default.
        resources: for activities that run for real, as the engine's.
        store: makes an empty store on a given clock; a MemoryStore by default.
        seed: all chance in workflows follows from it.
        codec, default_retry_policy: as the engine's.
    """

    def __init__(
        self,
        *,
        start_time: datetime | None = None,
        resources: Mapping[type[Any], Any] | None = None,
        store: Clocked | None = None,
        seed: int = 0,
        codec: Codec | None = None,
        default_retry_policy: RetryPolicy | None = None,
    ) -> None:
        clock = VirtualClock() if start_time is None else VirtualClock(from_datetime(start_time))
        self._new_store: Clocked = store or (lambda clock: MemoryStore(clock=clock))
        self._start_at = clock.now()
        self._resources = dict(resources or {})
        self._codec = codec
        self._options = {"default_retry_policy": default_retry_policy}
        self._seed = seed
        self._stubs = Stubs(lambda error: self._world.fail(error))
        self._world = World(self._new_store, clock, self._stubs, self._resources, codec, **self._options)
        self._stubs.converter = self._world.converter
        self._engine: Engine = self._world.new_engine()
        self._runs: list[TestRun[Any]] = []
        self._watch: asyncio.Task[None] | None = None
        self._beginning: asyncio.Lock = asyncio.Lock()
        self._moving: asyncio.Lock = asyncio.Lock()
        self._closed = False
        self.client: Client = self._engine.client

    # --- life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        with suppress(Exception) if e is not None else nullcontext():  # the first error counts
            await self.close()

    def close_from_outside(self) -> None:
        """Close it where no event loop runs, such as after a test that called `asyncio.run` itself."""
        loop = None if self._watch is None else self._watch.get_loop()
        if loop is not None and not loop.is_closed():
            loop.run_until_complete(self.close())
        elif loop is not None:
            self._watch = None  # its loop has ended all tasks; the threads are left
            self._world.drop()
        failure = self._world.take_failure()
        if failure is not None:
            raise failure

    async def _begin(self) -> None:
        async with self._beginning:
            if self._watch is not None and self._watch.get_loop() is not asyncio.get_running_loop():
                raise RuntimeError("an environment belongs to the event loop that used it first: make another one")
            if self._watch is None:
                if self._closed:
                    raise RuntimeError("this environment is closed: make another one")
                await self._world.begin(self._engine)
                self._watch = asyncio.get_running_loop().create_task(self._keep_moving(), name="derecho-test-clock")

    async def close(self) -> None:
        """Take everything down; no task and no thread is left. Raises what the test has not been told yet."""
        starts = [run._handle for run in self._runs if run._handle is not None]
        results = await asyncio.gather(*starts, return_exceptions=True)
        self._runs.clear()
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
            await self._world.close()
        failure = self._world.take_failure() or next((item for item in results if isinstance(item, Exception)), None)
        if failure is not None:
            raise failure

    @property
    def now(self) -> datetime:
        return to_datetime(self._world.store.now())

    # --- what stands in for activities and children ------------------------------------------------------------------

    @overload
    def stub(self, activity: Activity[P, R] | SyncActivity[P, R], fn: Callable[P, Coroutine[Any, Any, R]]) -> None: ...
    @overload
    def stub(self, activity: Activity[P, R] | SyncActivity[P, R], fn: Callable[P, R]) -> None: ...
    def stub(self, activity: ActivityDefinition, fn: Callable[..., Any]) -> None:
        """Run this function instead, `def` or `async def`; of several stubs of one activity the newest counts."""
        self._stubs.add(activity, Stub(fn))

    def use_real(self, *definitions: Definition) -> None:
        """Run these for real, with the environment's resources.

        An activity with neither a stub nor this fails the test at once. Workflows are needed only where code starts
        them in a way that the environment cannot see.
        """
        for definition in definitions:
            if isinstance(definition, ActivityDefinition):
                self._stubs.use_real(definition)
            else:
                self._world.registry.know(definition)

    def stub_value(self, activity: Activity[P, R] | SyncActivity[P, R] | str, value: Any) -> None:
        """The activity gives this value; one that does not fit its annotation is refused here."""
        self._stubs.add_value(activity, value)

    def stub_error(
        self, activity: Activity[..., Any] | SyncActivity[..., Any] | str, error: Exception, *, times: int | None = None
    ) -> None:
        """Each attempt raises this, which the activity's retry policy then judges; after `times` attempts the stub
        before it counts again."""

        def fail(*args: Any, **kwargs: Any) -> Any:
            raise error.with_traceback(None)

        self._stubs.add(activity, Stub(fail, times))

    def stub_child(self, workflow: Workflow[..., Any] | str, value: Any) -> None:
        """Children of this type give this value at once."""
        self._stubs.add_child(workflow, value)

    # --- running -----------------------------------------------------------------------------------------------------

    def start(
        self, call: Invocation[R], *, id: str | None = None, signals: Sequence[tuple[Signal[Any], Any]] = ()
    ) -> TestRun[R]:
        """Start a workflow: it begins when the test first waits for something."""
        number = len(self._runs) + 1
        workflow_id = id or f"{call.name}-{number}"
        self._world.registry.know(call.definition)

        async def begin() -> Handle[R]:
            await self._begin()
            run_id = seeded_run_id(self._seed, number, self._start_at)
            return await start(self.client, call, workflow_id, run_id, signals)

        run = TestRun(workflow_id, begin)
        self._runs.append(run)
        if self._watch is not None:
            run._start()
        return run

    async def run(self, call: Invocation[R]) -> R:
        """Start a workflow and wait for its result."""
        return await self.start(call).result()

    async def explore_crashes(
        self,
        call: Invocation[R],
        *,
        signals: Sequence[tuple[Signal[Any], Any]] = (),
        same: Callable[[R, R], bool] | None = None,
        drive: Callable[[SteeredRun[R]], Coroutine[Any, Any, None]] | None = None,
        faults: Collection[Fault] | None = None,
        limit: int | None = None,
        pairs: int = 0,
    ) -> CrashReport[R]:
        """Run once, then again for every commit with a fault there; every outcome must equal the first.

        Each run has an empty store and unused stubs of its own. Only a run that is cancelled may end differently: it
        must close, and its history be whole. Raises CrashFound, which says how to repeat it.

        Args:
            signals: delivered with the start, in every run.
            same: whether two results are equal, if `==` is too much: where order is a matter of luck, for instance.
            drive: steers each run from outside; time stands still while it does something, but not in its `sleep`.
            faults: kinds to try; all by default. Leave "late" out if the outcome may depend on when a timer fires.
            limit: at most so many places per kind, by chance.
            pairs: so many runs more, with two faults.
        """
        id = f"{call.name}-1"
        plan = Plan(
            call,
            id,
            seed_of(self._seed),
            self._new_store,
            self._start_at,
            self._stubs,
            self._resources,
            signals,
            same,
            drive,
            {"codec": self._codec, **self._options},
        )
        return await explore(plan, faults, limit, pairs)

    async def advance(self, duration: timedelta | float) -> None:
        """Let time pass; what is due on the way happens at its instant. Returns when everything waits again.

        Raises at once when a run is blocked or an activity has no stub. `advance(0)` waits without moving time.
        """
        await self._begin()
        for run in list(self._runs):
            await run.handle()
        async with self._moving:
            await self._world.advance(micros(duration))
        failure = self._world.take_failure()
        if failure is not None:
            raise failure

    async def _keep_moving(self) -> None:
        """While a result is awaited: jump whenever everything waits."""
        while True:
            await self._world._next_pulse()
            waiting = self.client._watcher._waiting
            if not waiting and self._world.failure is None:
                continue
            try:
                async with self._moving:
                    await self._world.settle()
                    if waiting and self._world.failure is None and not await self._world.jump():
                        await self._stuck()
            except Exception as exc:  # of the store: whoever waits is to hear of it
                self._world.fail(exc)
            if waiting and self._world.failure is not None:
                self._tell(self._world.take_failure())

    async def _stuck(self) -> None:
        """Nothing will ever happen, unless the test does something: wait a while for that."""
        world, seen, until = self._world, self._world.changes, time.monotonic() + STUCK_AFTER
        while world.changes == seen and world.failure is None and self.client._watcher._waiting:
            if time.monotonic() > until:
                waits = await world.describe_waiting()
                world.fail(AssertionError(f"a result is awaited, and nothing will ever happen:\n{waits}"))
                return
            self._moving.release()
            try:
                await world._next_pulse()
            finally:
                await self._moving.acquire()

    def _tell(self, failure: BaseException | None) -> None:
        waiting = self.client._watcher._waiting
        for run_id in list(waiting):
            for future in waiting.pop(run_id):
                if not future.done() and failure is not None:
                    future.set_exception(failure)

    # --- what was called ---------------------------------------------------------------------------------------------

    def calls(self, activity: Activity[..., Any] | SyncActivity[..., Any] | str) -> list[ActivityCall]:
        """The attempts of an activity so far, in order."""
        return self._stubs.calls_of(activity)

    def assert_called(
        self, activity: Activity[..., Any] | SyncActivity[..., Any] | str, *, times: int | None = None
    ) -> None:
        """It was attempted, `times` times if that is given."""
        found, name = len(self.calls(activity)), _name(activity)
        if found == 0 if times is None else found != times:
            wanted = "at all" if times is None else f"{times} times"
            raise AssertionError(
                f"activity {name!r} should have been called {wanted}, and was {found} times. "
                f"Called: {self._stubs.called()}"
            )

    def assert_called_with(
        self, activity: Activity[P, R] | SyncActivity[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """One of its attempts had these arguments."""
        wanted = tuple(in_order(activity.signature, args, kwargs))
        found = [call.args for call in self.calls(activity)]
        if wanted not in found:
            raise AssertionError(f"activity {activity.name!r} was never called with {wanted!r}. Its calls: {found!r}")

    def assert_not_called(self, activity: Activity[..., Any] | SyncActivity[..., Any] | str) -> None:
        """It was never attempted."""
        found = [call.args for call in self.calls(activity)]
        if found:
            raise AssertionError(f"activity {_name(activity)!r} should not have been called. Its calls: {found!r}")


def _name(activity: Definition | str) -> str:
    return activity if isinstance(activity, str) else activity.name
