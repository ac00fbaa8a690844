"""What an attempt can ask about itself, and the resources that it shares. (G18, R15)"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import pytest

import derecho
from derecho import Context, Engine, RetryPolicy, Store
from tests.activities.kit import Probe, calling, engine, probe
from tests.support.world import eventually


@derecho.activity(retry=RetryPolicy(initial_interval=0))
async def ask(good: int) -> str:
    act = probe().enter()
    if act.attempt < good:
        raise ValueError("again")
    return act.idempotency_key


async def test_the_idempotency_key_is_the_same_for_all_attempts_and_unique_across_runs(store: Store) -> None:
    @derecho.workflow
    async def twice(ctx: Context) -> list[str]:
        return [await ask.execute(ctx, 3), await ask.execute(ctx, 1)]

    seen = Probe()
    async with engine(store, twice, ask, probe=seen) as running:
        first = await running.client.start(twice.bind(), id="a")
        keys = await first.result(timeout=10)
        keys += await running.client.run(twice.bind(), id="a")
    assert len(set(keys)) == 4
    assert [act.idempotency_key for act in seen.attempts[:3]] == [keys[0]] * 3
    assert [(act.workflow_id, act.run_id, act.name) for act in seen.attempts[:3]] == [("a", first.run_id, "ask")] * 3
    assert len({act.scheduled_at for act in seen.attempts[:3]}) == 1


async def test_an_activity_may_use_the_client_of_its_engine(store: Store) -> None:
    @derecho.workflow
    async def leaf(ctx: Context) -> str:
        return "leaf"

    @derecho.activity
    async def start_another() -> str:
        return await derecho.current_activity().client.run(leaf.bind())

    async with engine(store, caller := calling(start_another.bind()), leaf, start_another) as running:
        assert await running.client.run(caller.bind()) == "leaf"


class Pool:
    """A resource with a clean-up."""

    def __init__(self) -> None:
        self.closed = False


class Cache(Pool):
    """Another."""


class Names(Protocol):
    """A protocol that isinstance cannot be asked about."""

    def name(self) -> str: ...


class Ann:
    def name(self) -> str:
        return "Ann"


@derecho.activity
async def use() -> list[Any]:
    act = derecho.current_activity()
    pool, cache = act.resource(Pool), act.resource(Cache)
    probe().notes += [pool, cache]
    return [pool.closed, cache.closed, act.resource(int), act.resource(Names).name()]  # type: ignore[type-abstract]


async def test_factories_are_opened_with_the_engine_and_closed_in_reverse(store: Store) -> None:
    order: list[str] = []

    @asynccontextmanager
    async def pool() -> AsyncIterator[Pool]:
        made = Pool()
        yield made
        made.closed = True
        order.append("pool")

    @contextmanager
    def cache() -> Iterator[Cache]:
        made = Cache()
        yield made
        made.closed = True
        order.append("cache")

    async def number() -> int:
        return 7

    seen = Probe()
    resources = {Probe: seen, Pool: pool, Cache: cache, int: number, Names: Ann()}
    async with engine(store, caller := calling(use.bind()), use, resources=resources) as running:
        assert await running.client.run(caller.bind()) == [False, False, 7, "Ann"]
        assert order == []
    assert order == ["cache", "pool"]
    assert [item.closed for item in seen.notes] == [True, True]


async def test_a_factory_that_fails_ends_the_start_and_closes_what_was_open(store: Store) -> None:
    order: list[str] = []

    @asynccontextmanager
    async def pool() -> AsyncIterator[Pool]:
        yield Pool()
        order.append("pool")

    def broken() -> Cache:
        raise ConnectionError("no cache")

    with pytest.raises(ConnectionError, match="no cache"):
        async with Engine(store, resources={Pool: pool, Cache: broken}):
            pass
    assert order == ["pool"]


async def test_a_missing_resource_says_what_there_is(store: Store) -> None:
    @derecho.activity(retry=RetryPolicy.none())
    async def want() -> None:
        derecho.current_activity().resource(Pool)

    async with engine(store, caller := calling(want.bind()), want) as running:
        with pytest.raises(derecho.WorkflowFailed, match="this engine has: Probe"):
            await running.client.run(caller.bind())


async def test_an_activity_registered_while_the_engine_runs_is_served(store: Store) -> None:
    @derecho.activity
    async def late() -> str:
        return "late"

    async with engine(store, caller := calling(late.bind())) as running:
        handle = await running.client.start(caller.bind())
        await eventually(lambda: _blocked(handle))
        running.register_activity(late)
        assert await handle.result(timeout=10) == "late"


async def _blocked(handle: derecho.Handle[Any]) -> bool:
    return (await handle.describe()).status == "blocked"
