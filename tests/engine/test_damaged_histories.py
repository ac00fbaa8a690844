"""A history that was damaged, or that only newer code can read, is not replayed: its run is blocked, others go on."""

import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import derecho
from derecho import Client, Context, Engine, Signal, Store
from derecho.errors import StoreError
from derecho.journal.changes import Advance
from derecho.journal.wire import HistoryRow, chain
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually
from tests.support.wrapped import wrapped

go = Signal("go", int)
Rows = list[HistoryRow]


@derecho.activity
async def charge() -> str:
    return "charged"


@derecho.workflow
async def order(ctx: Context) -> str:
    await charge.execute(ctx)
    return f"done {await ctx.signals(go).receive()}"


@derecho.workflow
async def healthy(ctx: Context) -> str:
    return await charge.execute(ctx)


def changed(rows: Rows) -> Rows:
    return [rows[0], replace(rows[1], data=rows[1].data.replace("charged", "charmed"))]


def lost(rows: Rows) -> Rows:
    return rows[1:]


def cut_short(rows: Rows) -> Rows:
    return rows[:1]


def reordered(rows: Rows) -> Rows:
    return [rows[1], rows[0]]


def rewritten(rows: Rows) -> Rows:
    """Changed by somebody who knows how digests are made."""
    data = rows[1].data.replace("charged", "charmed")
    return [rows[0], replace(rows[1], data=data, digest=chain(rows[0].digest, 2, rows[1].at, data))]


@pytest.mark.parametrize("damage", [changed, lost, cut_short, reordered, rewritten])
async def test_a_damaged_history_is_not_replayed(
    store: Store, clock: StandingClock, damage: Callable[[Rows], Rows]
) -> None:
    await has_charged(store)

    async def load(original: Callable[..., Any], run_ids: Collection[str]) -> dict[str, Rows]:
        found = await original(run_ids)
        row = await store.find_run("w")
        if row is not None and len(found.get(row.run_id, ())) == 2:
            found[row.run_id] = damage(found[row.run_id])
        return dict(found)

    async with engine_of(wrapped(store, load=load), order, healthy, charge) as engine:
        handle = engine.client.get(order, "w")
        await handle.signal(go, 1)
        assert "history of run" in await blocked_reason(store)
        assert await engine.client.run(healthy.bind()) == "charged"
        assert (await handle.describe()).status == "blocked"
    clock.advance(60)
    async with engine_of(store, order, charge) as engine:  # the disk was repaired
        assert await engine.client.get(order, "w").result(timeout=20) == "done 1"


async def test_a_history_that_the_store_cannot_read_blocks_its_run_and_no_others(
    store: Store, clock: StandingClock
) -> None:
    """A page of the file is damaged: every query that comes to it fails, and will fail again."""
    await has_charged(store)
    row = await store.find_run("w")
    assert row is not None

    async def load(original: Callable[..., Any], run_ids: Collection[str]) -> Any:
        if row.run_id in run_ids:
            raise StoreError("the database is damaged: restore a backup")
        return await original(run_ids)

    async with engine_of(wrapped(store, load=load), order, healthy, charge) as engine:
        await engine.client.get(order, "w").signal(go, 1)
        assert "the database is damaged: restore a backup" in await blocked_reason(store)
        assert await engine.client.run(healthy.bind()) == "charged"
    clock.advance(60)
    async with engine_of(store, order, charge) as engine:  # a backup was restored
        assert await engine.client.get(order, "w").result(timeout=20) == "done 1"


@pytest.mark.unsound
async def test_an_event_that_only_newer_code_can_read_blocks_and_nothing_is_lost(store: Store) -> None:
    await has_charged(store)
    row = await store.find_run("w")
    assert row is not None
    data = f'[{{"type":"workflow_task_completed","at":{row.started_at}}},{{"type":"moon_phase_recorded"}}]'
    newer = HistoryRow(3, row.events + 1, row.started_at, data, chain(row.digest, 3, row.started_at, data))
    await store.commit([(Advance(row.run_id, row.head, newer, row.events + 2),)])
    async with engine_of(store, order, healthy, charge) as engine:
        await engine.client.get(order, "w").signal(go, 1)
        assert "moon_phase_recorded" in await blocked_reason(store)
        assert await engine.client.run(healthy.bind()) == "charged"
    assert [message.number for message in (await store.pending(row.run_id)).messages] == [row.inbox_last + 1]


async def has_charged(store: Store) -> None:
    """A run that has charged and waits for its signal, and no engine."""

    async def waits() -> bool:
        row = await store.find_run("w")
        return row is not None and row.tasks == 2 and row.claim is None

    async with engine_of(store, order, charge) as engine:
        await engine.client.start(order.bind(), id="w")
        await eventually(waits)


async def blocked_reason(store: Store) -> str:
    async def reason() -> str | None:
        row = await store.find_run("w")
        return None if row is None else row.blocked_reason

    return str(await eventually(reason))


async def test_a_message_whose_text_is_damaged_blocks_its_run_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    async with Client(f"sqlite:///{path}") as client:
        bad = await client.start(order.bind(), id="bad", signals=[(go, 1)])
        await client.start(order.bind(), id="good", signals=[(go, 1)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE inbox SET data = CAST(x'7bff7d' AS TEXT) WHERE run_id = ? AND number = 2", (bad.run_id,)
        )
        connection.commit()
    async with Engine(f"sqlite:///{path}", workflows=[order], activities=[charge]) as engine:
        assert await engine.client.get(order, "good").result(timeout=20) == "done 1"
        run = await engine.client.get(order, "bad").describe()
    assert run.status == "blocked"
    assert "a message in the inbox cannot be read" in (run.blocked_reason or "")
