"""Closed runs are deleted when they have been closed for long enough; nothing else is."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from derecho import (
    Client,
    Context,
    DefinitionError,
    Engine,
    Handle,
    MemoryStore,
    PostgresStore,
    Signal,
    Store,
    WorkflowAlreadyRunning,
    WorkflowDefinition,
    WorkflowNotFound,
    activity,
    retention,
    workflow,
)
from derecho.audit import audit
from derecho.journal.changes import ForgetRun, Transition
from derecho.stores.sqlite import SQLiteStore
from tests.support.clocks import StandingClock
from tests.support.flows import Flows
from tests.support.world import FOR_EVER
from tests.support.wrapped import wrapped

HOUR = timedelta(hours=1)
go = Signal("go", str)


@activity
async def double(number: int) -> int:
    return 2 * number


@workflow
async def order(ctx: Context, number: int) -> int:
    return await double.execute(ctx, number)


@workflow
async def failing(ctx: Context) -> None:
    raise ValueError("as it was told")


@workflow
async def waiting(ctx: Context) -> str:
    return await ctx.signals(go).receive()


@workflow
async def chain(ctx: Context) -> str:
    word = await ctx.signals(go).receive()
    if word == "end":
        return "the end"
    raise ctx.continue_as_new(chain.bind())


@workflow
async def parent(ctx: Context, policy: str) -> str:
    child = ctx.child(chain.bind(), id="child", close_policy="abandon" if policy == "abandon" else "terminate")
    await child.started()
    return await ctx.signals(go).receive()


DEFINITIONS = (order, failing, waiting, chain, parent, double)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, clock: StandingClock, tmp_path: Path) -> AsyncIterator[Store]:
    store: Store
    if request.param == "postgres":
        store = PostgresStore(request.getfixturevalue("empty_schema_url"), clock=clock)
    elif request.param == "sqlite":
        store = SQLiteStore(tmp_path / "test.db", synchronous="normal", clock=clock)
    else:
        store = MemoryStore(clock=clock)
    yield store
    await store.close()


@pytest.fixture
def flows(store: Store, clock: StandingClock) -> Flows:
    return Flows(store, clock)


def forgetful(flows: Flows, **options: Any) -> Engine:
    return flows.engine(*DEFINITIONS, lease=FOR_EVER, **{"retention": HOUR, **options})


async def run_ids(store: Store) -> set[str]:
    return {run.run_id async for run in Client(store).list()}


async def left(flows: Flows, count: int) -> set[str]:
    """The runs that are there, once there are so few."""

    async def few() -> set[str] | None:
        found = await run_ids(flows.store)
        return found | {""} if len(found) <= count else None

    found: set[str] = await flows.until(few) - {""}
    return found


async def a_pass(flows: Flows) -> None:
    """Return when a pass that began after now has ended: a run that is due now, and the last to be looked at, went."""
    async with Client(flows.store) as client:
        handle = await client.start(waiting.bind(), id="marker")
        await handle.terminate()
        flows.clock.advance(HOUR + timedelta(minutes=1))

        async def gone() -> bool:
            return await flows.store.get_run(handle.run_id) is None

        await flows.until(gone)


async def test_closed_runs_go_with_their_histories_when_their_time_has_come(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        client = engine.client
        assert await client.run(order.bind(21), id="completed") == 42
        handles: list[Handle[Any]] = [await client.start(waiting.bind(), id=id) for id in ("cancelled", "terminated")]
        handles.append(await client.start(failing.bind(), id="failed"))
        for id in ("cancelled", "terminated"):
            await flows.waiting(id)
        await handles[0].cancel()
        await handles[1].terminate()
        await asyncio.gather(*(handle.result() for handle in handles), return_exceptions=True)
        closed = await run_ids(flows.store)
        assert len(closed) == 4
        flows.clock.advance(HOUR + timedelta(minutes=1))
        assert await left(flows, 0) == set()
        assert [(await flows.store.load([run_id]))[run_id] for run_id in closed] == [[]] * 4
        with pytest.raises(WorkflowNotFound):
            await client.get(order, "completed").result()


async def test_an_open_run_is_never_deleted(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        sleeper = await engine.client.start(waiting.bind(), id="sleeper")
        stuck = await engine.client.start_by_name("nobody-has-this", id="stuck")
        await flows.waiting("sleeper")
        for _ in range(3):
            await a_pass(flows)
        assert await run_ids(flows.store) == {sleeper.run_id, stuck.run_id}
        await sleeper.signal(go, "on")
        assert await sleeper.result() == "on"


async def test_a_run_that_began_long_ago_stays_for_its_time_after_its_end(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        long = await engine.client.start(waiting.bind(), id="long")
        await flows.advance(HOUR * 5, "long")
        short = await engine.client.start(waiting.bind(), id="short")
        await short.terminate()  # such runs are looked at last
        flows.clock.advance(timedelta(minutes=2))
        await long.signal(go, "on")
        assert await long.result() == "on"
        flows.clock.advance(HOUR - timedelta(minutes=1))
        assert await left(flows, 1) == {long.run_id}
        assert await long.result() == "on"
        await a_pass(flows)
        assert await run_ids(flows.store) == set()


async def test_the_id_of_a_forgotten_run_is_as_good_as_new(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        first = await engine.client.start(order.bind(1), id="w")
        await first.result()
        with pytest.raises(WorkflowAlreadyRunning):
            await engine.client.start(order.bind(2), id="w", if_closed="reject")
        await a_pass(flows)
        second = await engine.client.start(order.bind(2), id="w", if_closed="reject")
        assert await second.result() == 4
        assert second.run_id != first.run_id


async def test_the_first_run_of_a_chain_stays_with_it_and_leads_to_the_others(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        handle = await engine.client.start(chain.bind(), id="w")
        for word in ("one", "two", "three"):
            await flows.waiting("w")
            await continued(flows, handle, word)
        await a_pass(flows)
        newest = await flows.waiting("w")
        assert await run_ids(flows.store) == {handle.run_id, newest.run_id}
        assert await audit(flows.store, retention=True) == []
        assert [violation.run_id for violation in await audit(flows.store)] == [handle.run_id]
        named = Client(flows.store).get(chain, "w", handle.run_id)
        await named.signal(go, "end")
        assert await named.result() == "the end"
        await a_pass(flows)
        assert await run_ids(flows.store) == set()


async def test_the_first_run_of_a_chain_stays_though_its_workflow_id_is_used_again(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        handle = await engine.client.start(chain.bind(), id="w")
        await flows.waiting("w")
        await continued(flows, handle, "one")
        marker = await engine.client.start(waiting.bind(), id="marker")
        await marker.terminate()
        flows.clock.advance(HOUR * 2 / 3)
        named = Client(flows.store).get(chain, "w", handle.run_id)
        await named.signal(go, "end")
        assert await named.result() == "the end"
        await engine.client.start(chain.bind(), id="w")
        flows.clock.advance(HOUR / 2)

        async def gone() -> bool:
            return await flows.store.get_run(marker.run_id) is None

        await flows.until(gone)
        assert await named.result() == "the end"


async def continued(flows: Flows, handle: Handle[str], word: str) -> None:
    """Signal a run of the chain, and return when the next one is there."""
    before = await flows.store.find_run(handle.id)
    assert before is not None
    await handle.signal(go, word)

    async def has_a_successor() -> bool:
        run = await flows.store.find_run(handle.id)
        return run is not None and run.run_id != before.run_id

    await flows.until(has_a_successor)


async def chained_child(flows: Flows, client: Client) -> str:
    """Let the child continue as new, and time pass; gives its run id."""
    await flows.waiting("child")
    await continued(flows, client.get(chain, "child"), "more")
    await a_pass(flows)
    return (await flows.waiting("child")).run_id


async def test_a_parent_still_ends_a_child_that_continued_as_new_long_ago(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        handle = await engine.client.start(parent.bind("terminate"), id="w")
        run_id = await chained_child(flows, engine.client)
        await handle.signal(go, "end")
        assert await handle.result() == "end"

        async def ended() -> bool:
            run = await flows.store.get_run(run_id)
            return run is not None and run.status == "terminated"

        await flows.until(ended)


async def test_a_child_may_outlive_its_forgotten_parent(flows: Flows) -> None:
    async with forgetful(flows) as engine:
        handle = await engine.client.start(parent.bind("abandon"), id="w")
        await flows.waiting("child")
        await handle.signal(go, "end")
        assert await handle.result() == "end"
        await a_pass(flows)
        assert await flows.store.get_run(handle.run_id) is None
        assert await audit(flows.store, retention=True) == []
        child = engine.client.get(chain, "child")
        await child.signal(go, "end")
        assert await child.result() == "the end"


async def closed_runs(flows: Flows, count: int) -> set[str]:
    async with flows.engine(*DEFINITIONS, lease=FOR_EVER) as engine:
        await asyncio.gather(*(engine.client.run(order.bind(n), id=f"w-{n}") for n in range(count)))
        await engine.client.start(waiting.bind(), id="open")
        await flows.waiting("open")
    return await run_ids(flows.store)


class Counted:
    """Counts commits that forget, and waits for ever at the one after `stop_after`."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.commits = 0
        self.asked = 0
        self.runs = 0
        self._stop_after = stop_after

    async def __call__(self, commit: Callable[..., Awaitable[Any]], transitions: Sequence[Transition]) -> Any:
        forgets = [change for transition in transitions for change in transition if isinstance(change, ForgetRun)]
        if forgets and self.commits == self._stop_after:
            await asyncio.Event().wait()
        self.asked += len(forgets)
        results = await commit(transitions)
        self.commits += bool(forgets)
        self.runs += len(forgets)
        return results


async def test_a_pass_that_ends_in_the_middle_is_taken_up(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_TASKS", 6)
    monkeypatch.setattr(retention, "_LOOK_AT", 7)
    runs, counted = await closed_runs(flows, 40), Counted(stop_after=5)
    flows.clock.advance(HOUR * 2)
    first = Flows(wrapped(flows.store, commit=counted), flows.clock)
    async with forgetful(first):
        await flows.until(lambda: counted.commits == 5)
    assert await audit(flows.store) == []
    middle = await run_ids(flows.store)
    assert len(middle) == 41 - counted.runs
    assert 10 <= counted.runs <= 20
    assert len([run_id for run_id in middle if (await flows.store.load([run_id]))[run_id]]) == len(middle)
    async with forgetful(flows):
        open_run = await flows.waiting("open")
        assert await left(flows, 1) == {open_run.run_id}
    assert [run_id for run_id in runs if (await flows.store.load([run_id]))[run_id]] == [open_run.run_id]


async def test_engines_that_forget_at_once_do_not_mind(flows: Flows, caplog: pytest.LogCaptureFixture) -> None:
    await closed_runs(flows, 60)
    flows.clock.advance(HOUR * 2)
    counted = Counted()
    together = Together(3)
    stores = [wrapped(flows.store, commit=counted, list_runs=together) for _ in range(3)]
    with caplog.at_level(logging.WARNING):
        engines = [forgetful(Flows(store, flows.clock)) for store in stores]
        await asyncio.gather(*(engine.__aenter__() for engine in engines))
        open_run = await flows.waiting("open")
        assert await left(flows, 1) == {open_run.run_id}
        await asyncio.gather(*(engine.__aexit__(None, None, None) for engine in engines))
    assert counted.asked == 180, "they did not meet"
    assert not [record for record in caplog.records if record.name == "derecho.engine"]


class Together:
    """The first so many calls that find something go on together, so that all of them have found the same."""

    def __init__(self, count: int) -> None:
        self._barrier = asyncio.Barrier(count)
        self._left = count

    async def __call__(self, original: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        found = await original(*args)
        if found and self._left:
            self._left -= 1
            await self._barrier.wait()
        return found


def test_less_than_a_minute_is_refused() -> None:
    definitions: list[WorkflowDefinition] = [order]
    with pytest.raises(DefinitionError, match="at least a minute"):
        Engine(MemoryStore(), workflows=definitions, retention=59.9)
    Engine(MemoryStore(), workflows=definitions, retention=60)
