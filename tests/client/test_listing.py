"""Listing runs: newest first, page by page, by type and status."""

import pytest

import derecho
from derecho import Client, Context, Signal, Store
from tests.support.clocks import StandingClock
from tests.support.world import engine_of

go = Signal("go", int)


@derecho.workflow
async def order(ctx: Context) -> None:
    await ctx.signals(go).receive()


@derecho.workflow
async def invoice(ctx: Context) -> None: ...


async def ids(client: Client, **where: str) -> list[str]:
    return [run.workflow_id async for run in client.list(**where)]  # type: ignore[arg-type]  # wrong ones, too


async def test_an_empty_store_has_no_runs(store: Store) -> None:
    async with Client(store) as client:
        assert await ids(client) == []


async def test_they_come_newest_first_also_over_many_pages(store: Store, clock: StandingClock) -> None:
    async with Client(store) as client:
        for hundred in range(3):
            await client.start_many([(f"w{hundred}{n:02}", order.bind()) for n in range(85)])
            clock.advance(1)
        found = await ids(client)
        assert sorted(found) == sorted(f"w{hundred}{n:02}" for hundred in range(3) for n in range(85))
        assert [id[1] for id in found] == ["2"] * 85 + ["1"] * 85 + ["0"] * 85


async def test_starts_meanwhile_do_not_double_or_hide_what_was_there(store: Store, clock: StandingClock) -> None:
    async with Client(store) as client:
        await client.start_many([(f"old{n}", order.bind()) for n in range(150)])
        found = []
        async for run in client.list():
            found.append(run.workflow_id)
            if len(found) % 50 == 0:
                clock.advance(1)
                await client.start(order.bind())
        assert sorted(found) == sorted(f"old{n}" for n in range(150))


async def test_filters_go_together(store: Store) -> None:
    async with engine_of(store, order, invoice) as engine:
        client = engine.client
        for n in range(3):
            await client.start(order.bind(), id=f"order-{n}")
            await client.run(invoice.bind(), id=f"invoice-{n}")
        await client.get_by_id("order-1").terminate()
        assert sorted(await ids(client, workflow_type="order")) == ["order-0", "order-1", "order-2"]
        assert sorted(await ids(client, status="completed")) == ["invoice-0", "invoice-1", "invoice-2"]
        assert await ids(client, workflow_type="order", status="terminated") == ["order-1"]
        assert await ids(client, workflow_type="invoice", status="running") == []
        assert await ids(client, workflow_type="nobody") == []


@pytest.mark.parametrize("text", ["'; --", "%", "\0", "\ud800"], ids=ascii)
async def test_a_filter_is_a_text_and_nothing_else(store: Store, text: str) -> None:
    async with Client(store) as client:
        await client.start(order.bind())
        assert await ids(client, workflow_type=text) == []
