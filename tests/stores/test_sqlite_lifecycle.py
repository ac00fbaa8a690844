"""Opening, closing and coming back: what was acknowledged is there, and what was asked of SQLite was granted."""

import asyncio
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from derecho.errors import StoreError
from derecho.journal.changes import Conflict, CreateRun, Deliver, Receipt, RequestTerminate
from derecho.journal.model import RunFilter
from derecho.stores.sql import Migration
from derecho.stores.sqlite import SQLiteStore
from derecho.stores.sqlite import connection as files
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import MINUTE, World, advance, everything, message, run_row
from tests.stores.faulty import tap_writers


@pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
def test_sqlite_does_what_was_asked_of_it(tmp_path: Path, synchronous: files.Synchronous, level: int) -> None:
    writer = files.open_writer(str(tmp_path / "shop.db"), synchronous, create=True)
    reader = files.open_reader(str(tmp_path / "shop.db"))
    pragmas = {
        "journal_mode": ("wal", "wal"),
        "synchronous": (level, None),
        "wal_autocheckpoint": (2_000, 0),
        "query_only": (0, 1),
    }
    for pragma, wanted in pragmas.items():
        for connection, value in zip((writer, reader), wanted, strict=True):
            assert value in (None, connection.execute(f"PRAGMA {pragma}").fetchone()[0]), pragma
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM runs")
    reader.close()
    writer.close()


async def test_the_default_survives_power_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = tap_writers(monkeypatch)
    store = SQLiteStore(tmp_path / "shop.db")
    await store.open()
    assert writers[0].real.execute("PRAGMA synchronous").fetchone()[0] == 2
    await store.close()


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    world = World(SQLiteStore(tmp_path / "shop.db", clock=clock), clock)
    await world.claimed(1)
    await world.running_activity(5, timeout_at=world.now)
    await world.timer()
    await world.closed(2)
    await world.sleeping(3)
    await world.do(RequestTerminate("run-3", "why"), Deliver(message("a", "key"), run_id="run-3"))
    before = await everything(world.store)
    await world.store.close()
    again = World(SQLiteStore(tmp_path / "shop.db", clock=clock), clock)
    assert await everything(again.store) == before
    assert (await again.do(Deliver(message("a", "key"), run_id="run-3"))).delivered == (("run-3", 0, False),)
    assert await again.refused(advance("run-2", status="failed", data="[1]")) == Conflict("closed", "completed")
    await again.store.close()


async def test_the_clock_does_not_go_back_over_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    world = World(SQLiteStore(tmp_path / "shop.db", clock=clock), clock)
    await world.start()
    stored = world.now
    await world.store.close()
    clock.advance(-MINUTE)
    again = World(SQLiteStore(tmp_path / "shop.db", clock=clock), clock)
    await again.store.open()
    assert again.now == stored
    assert (await again.sleeping(2)).started_at == stored
    await again.store.close()


async def test_closing_leaves_one_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.commit([(CreateRun(run_row(), ()),)])
    assert len(os.listdir(tmp_path)) == 3
    await store.close()
    assert os.listdir(tmp_path) == ["shop.db"]


async def test_closing_finishes_what_was_accepted(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.commit([(CreateRun(run_row(), ()),)])
    commits = [asyncio.create_task(store.commit([(Deliver(message(), run_id="run-1"),)])) for _ in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert [result for (result,) in await asyncio.gather(*commits)] == [
        Receipt((("run-1", number, False),)) for number in range(1, 21)
    ]


async def test_opening_and_closing_again_and_again_is_harmless(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    for number in range(3):
        await asyncio.gather(store.open(), store.open())
        await store.commit([(CreateRun(run_row(number), ()),)])
        await asyncio.gather(store.close(), store.close())
        await store.close()
    await store.open()
    assert len(await store.list_runs(RunFilter())) == 3
    await store.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("derecho-sqlite")] == []


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.open()
    await store.close()
    with pytest.raises(StoreError, match="is closed; open\\(\\) it again"):
        await store.workers()
    with pytest.raises(StoreError, match="is closed; open\\(\\) it again"):
        await store.commit([(CreateRun(run_row(), ()),)])


async def test_closing_a_store_that_was_never_opened_is_harmless(tmp_path: Path) -> None:
    await SQLiteStore(tmp_path / "shop.db").close()
    assert os.listdir(tmp_path) == []


async def test_closing_wakes_who_waits(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.open()
    waiting = asyncio.create_task(store.wait("runs", store.seen("runs"), 3_600))
    await asyncio.sleep(0)
    await store.close()
    async with asyncio.timeout(30):
        await waiting


async def test_other_methods_open_the_store(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    assert await store.find_run("order-1") is None
    await store.close()


async def test_opening_an_open_store_does_not_wait_for_what_is_being_written(tmp_path: Path) -> None:
    """Every start opens the store, and must not stand behind the commit that is under way."""
    store, under_way, go_on = SQLiteStore(tmp_path / "shop.db"), threading.Event(), threading.Event()
    await store.open()

    def write(connection: sqlite3.Connection) -> None:
        under_way.set()
        go_on.wait(60)

    writing = asyncio.create_task(store._write(write))
    await asyncio.to_thread(under_way.wait, 60)
    try:
        await asyncio.wait_for(store.open(), 30)
        assert not writing.done()
    finally:
        go_on.set()
        await writing
        await store.close()


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.commit([(CreateRun(run_row(), ()),)])
    await store.close()
    good = Migration(2, "0002_good", "ALTER TABLE runs ADD COLUMN mood TEXT;\n")
    bad = Migration(3, "0003_bad", "CREATE TABLE moods (a) STRICT;\nSELECT nonsense;\n")
    monkeypatch.setattr(files, "_MIGRATIONS", [*files._MIGRATIONS, good, bad])
    store = SQLiteStore(tmp_path / "shop.db")
    with pytest.raises(StoreError):
        await store.open()
    await store.close()
    monkeypatch.setattr(files, "_MIGRATIONS", files._MIGRATIONS[:2])
    store = SQLiteStore(tmp_path / "shop.db")
    assert await store.get_run("run-1") is not None, "columns that came later do not disturb the rows"
    await store.close()
    monkeypatch.setattr(files, "_MIGRATIONS", files._MIGRATIONS[:1])
    store = SQLiteStore(tmp_path / "shop.db")
    with pytest.raises(StoreError, match="has schema 2, made by a newer release"):
        await store.open()
    await store.close()
