"""Versions of a workflow side by side: a run stays on its own, whoever works, and a rolling deploy loses nothing."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

import derecho
from derecho import Client, Context, DefinitionError, Engine, Signal, Store, WorkflowNotFound
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually

__all__ = ["StandingClock"]

go = Signal("go", str)


@derecho.activity
async def deliver(item: str) -> str:
    return f"{item} delivered"


@derecho.workflow("sale")
async def first(ctx: Context, item: str) -> str:
    name = await ctx.signals(go).receive()
    return f"1: {await deliver.execute(ctx, item)} by {name}"


@derecho.workflow("sale", version=2)
async def second(ctx: Context, item: str) -> str:
    delivered = await deliver.execute(ctx, item)
    name = await ctx.signals(go).receive()
    return f"2: {delivered} by {name}"


@derecho.workflow
async def parent(ctx: Context, item: str) -> list[str]:
    return [await ctx.child(call) for call in (first.bind(item), second.bind(item))]


def test_one_version_is_registered_once() -> None:
    @derecho.workflow("sale", version=2)
    async def again(ctx: Context, item: str) -> str:
        return item

    with pytest.raises(DefinitionError, match="two workflows are registered as 'sale', version 2"):
        Engine("memory:", workflows=[first, second, again])


async def test_a_rolling_deploy_loses_nothing_and_each_run_stays_on_its_version(store: Store) -> None:
    """Old engines go one by one while new ones come; starts and signals of both versions never stop."""
    client, wanted = Client(store), {}

    async def serve(engine: Engine, number: int) -> None:
        """Some traffic while this engine is the newest."""
        for n in range(6):
            workflow = second if number and n % 2 else first
            id = f"{number}-{n}"
            wanted[id] = f"{2 if workflow is second else 1}: {id} delivered by ann"
            through = engine.client if n % 3 else client
            await through.start(workflow.bind(id), id=id)

    old = [engine_of(store, first, deliver) for _ in range(2)]
    new = [engine_of(store, first, second, deliver) for _ in range(2)]
    await old[0].__aenter__()
    await old[1].__aenter__()
    await serve(old[0], 0)
    for number, (gone, come) in enumerate(zip(old, new, strict=True), 1):
        await come.__aenter__()
        await serve(come, number)
        for id in [id for id in wanted if id.endswith(("0", "1", "2"))]:
            handle = client.get(first, id)
            if (await handle.describe()).status == "running":
                await handle.signal(go, "ann", key=id)
        await gone.__aexit__(None, None, None)
    for id in [id for id in wanted if id.endswith(("3", "4", "5"))]:
        await client.get(first, id).signal(go, "ann", key=id)
    found = {id: await asyncio.wait_for(client.get(first, id).result(), 60) for id in wanted}
    assert found == wanted
    assert Counter(text[0] for text in found.values()) == {"1": 12, "2": 6}
    for engine in new:
        await engine.__aexit__(None, None, None)
    await client.close()


async def test_an_engine_leaves_versions_alone_whose_code_it_does_not_have(store: Store) -> None:
    client = Client(store)
    async with engine_of(store, first, deliver) as old:
        handle = await old.client.start(second.bind("tea"))
        marker = await old.client.start(first.bind("salt"))
        await marker.signal(go, "ann")
        assert await asyncio.wait_for(marker.result(), 60) == "1: salt delivered by ann"
        row = await store.find_run(handle.id)
        assert row is not None
        assert (row.status, row.claim, row.tasks) == ("running", None, 0)
        described = await handle.describe()
        assert described.status == "blocked"
        assert described.blocked_reason == (
            "no running engine has version 2 of workflow type 'sale': start one that registers it"
        )
        async with engine_of(store, second, deliver):
            await handle.signal(go, "bob")
            assert await asyncio.wait_for(client.get(second, handle.id).result(), 60) == "2: tea delivered by bob"
    await client.close()


async def test_a_dead_engines_runs_go_to_who_has_their_version(store: Store) -> None:
    client = Client(store)
    both = engine_of(store, first, second, deliver)
    await both.__aenter__()
    handles = [await both.client.start(workflow.bind("tea")) for workflow in (first, second)]

    async def wait() -> bool:
        rows = [await store.find_run(handle.id) for handle in handles]
        return all(row is not None and row.tasks and row.claim is None for row in rows)

    await eventually(wait)
    await both.__aexit__(None, None, None)
    async with engine_of(store, first, deliver), engine_of(store, second, deliver):
        for handle in handles:
            await client.get_by_id(handle.id).signal(go, "ann")
        results = [await asyncio.wait_for(client.get_by_id(handle.id).result(), 60) for handle in handles]
    assert results == ["1: tea delivered by ann", "2: tea delivered by ann"]
    await client.close()


async def test_a_start_by_name_takes_the_newest_version_that_an_engine_has(store: Store) -> None:
    async with Client(store) as client, engine_of(store, first, deliver):
        handles = [await client.start_by_name("sale", "tea")]
        async with engine_of(store, first, second, deliver):
            handles.append(await client.start_by_name("sale", "salt"))
            for handle in handles:
                await handle.signal(go, "ann")
            assert [await asyncio.wait_for(handle.result(), 60) for handle in handles] == [
                "1: tea delivered by ann",
                "2: salt delivered by ann",
            ]


async def test_children_have_versions_too(store: Store) -> None:
    async with engine_of(store, parent, first, deliver) as one, engine_of(store, second, deliver):
        handle = await one.client.start(parent.bind("tea"), id="p")

        async def signal_children() -> bool:
            for row in await store.children(handle.run_id):
                with suppress(WorkflowNotFound):  # it had its signal, and closed meanwhile
                    await one.client.get_by_id(row.workflow_id).signal(go, "ann", key=row.run_id)
            found = await store.find_run("p")
            return found is not None and not found.is_open

        await eventually(signal_children)
        assert await handle.result() == ["1: tea delivered by ann", "2: tea delivered by ann"]


@pytest.mark.parametrize("version", [0, -1, 1.5, "2", 2**31])
def test_a_version_is_a_number_that_every_store_keeps(version: Any) -> None:
    with pytest.raises(DefinitionError, match="workflow 'sale': its version is an integer from 1 on"):

        @derecho.workflow("sale", version=version)
        async def sale(ctx: Context) -> None: ...


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", 7])
def test_an_engine_has_a_name_that_every_store_keeps(name: Any) -> None:
    with pytest.raises(DefinitionError, match=r"worker name .* (is empty|has |is a int)"):
        derecho.Engine("memory:", worker_id=name)
