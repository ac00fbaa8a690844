"""When the disk is full, the file locked or a write fails, nothing acknowledged is lost and the store comes back."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from derecho.errors import StoreError, StoreUnavailable
from derecho.journal.changes import CreateRun, Deliver, Receipt
from derecho.stores.sqlite import SQLiteStore
from derecho.stores.sqlite import connection as files
from derecho.testing.conformance.kit import message, run_row
from tests.stores.faulty import Connection, hear, run_process, sqlite_error, start_process, tap_writers

HOLD_THE_LOCK = """
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    say("locked")
    sys.stdin.readline()
    connection.execute("COMMIT")
    say("released")
"""

GROW_BEYOND_THE_LIMIT = """
    async def main():
        store = SQLiteStore(sys.argv[1])
        await store.commit([(CreateRun(run_row(), ()),)])
        acknowledged, failures = 0, []
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        for number in range(200):
            try:
                await store.commit([(Deliver(message(f"{number:06}" * 1_000), run_id="run-1"),)])
                acknowledged += 1
            except StoreUnavailable as exc:
                failures.append(exc)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.commit([(Deliver(message("after"), run_id="run-1"),)])
        found = (await store.pending("run-1")).messages
        say(f"{acknowledged} {len(failures)} {len(found)} {found[-1].data}")
        say(str(failures[0]))
        await store.close()
    asyncio.run(main())
"""


def deliver(text: str = "hello") -> tuple[Deliver]:
    return (Deliver(message(text), run_id="run-1"),)


async def new_store(path: Path) -> SQLiteStore:
    store = SQLiteStore(path / "shop.db")
    assert await store.commit([(CreateRun(run_row(), ()),)]) == [Receipt()]
    return store


async def inbox(store: SQLiteStore) -> list[str]:
    return [unread.data for unread in (await store.pending("run-1")).messages]


async def failure(store: SQLiteStore, text: str = "lost") -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as failed:
        await store.commit([deliver(text)])
    assert str(store.url.removeprefix("sqlite:///")) in str(failed.value)
    return failed.value


async def test_a_file_that_another_process_locks_is_unavailable_until_it_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BUSY_TIMEOUT", 0.05)
    store = await new_store(tmp_path)
    other = start_process(HOLD_THE_LOCK, tmp_path / "shop.db")
    assert hear(other) == "locked"
    failed = await failure(store)
    assert failed.outcome == "not_applied"
    assert "is locked: another process has been writing" in str(failed)
    assert await inbox(store) == [], "reads go on meanwhile"
    other.communicate("release\n", timeout=60)
    await store.commit([deliver("after")])
    assert await inbox(store) == [message("after").data]
    await store.close()


async def test_a_store_waits_for_another_process_that_writes_briefly(tmp_path: Path) -> None:
    store = await new_store(tmp_path)
    other = start_process(HOLD_THE_LOCK, tmp_path / "shop.db")
    assert hear(other) == "locked"
    commit = asyncio.create_task(store.commit([deliver()]))
    await asyncio.sleep(0)
    other.communicate("release\n", timeout=60)
    assert await commit == [Receipt((("run-1", 1, False),))]
    await store.close()


async def test_a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    pages = writers[0].real.execute("PRAGMA page_count").fetchone()[0]
    for _ in range(3):
        writers[0].real.execute(f"PRAGMA max_page_count = {pages + 8}")
        acknowledged = await inbox(store)
        for number in range(100):
            text = f"{number:06}" * 1_000
            try:
                await store.commit([deliver(text)])
            except StoreUnavailable as exc:
                failed = exc
                break
            acknowledged.append(message(text).data)
        else:
            pytest.fail("the disk never was full")
        assert failed.outcome == "not_applied"
        assert "the disk is full; free some space" in str(failed)
        assert await inbox(store) == acknowledged
        writers[0].real.execute("PRAGMA max_page_count = 1000000")
        assert isinstance((await store.commit([deliver("after")]))[0], Receipt)
        pages = writers[0].real.execute("PRAGMA page_count").fetchone()[0]
    assert len(writers) == 1, "the connection is as good as before"
    await store.close()


def test_a_write_that_the_system_refuses_loses_nothing(tmp_path: Path) -> None:
    counts, failed = run_process(GROW_BEYOND_THE_LIMIT, tmp_path / "shop.db")
    acknowledged, failures, found, last = counts.split(maxsplit=3)
    assert int(failures) > 0
    assert int(acknowledged) > 0
    assert last == message("after").data
    assert int(found) == int(acknowledged) + 1, "what failed was not kept and what was acknowledged was"
    assert "cannot be read or written; check the disk" in failed or "cannot grow" in failed


Fault = Callable[[str, Callable[[], sqlite3.Cursor]], sqlite3.Cursor]


def failing(statement: str, code: int, *, after: bool = False, times: int = 1) -> Fault:
    """A fault at the statements that begin like this, before they run or after."""
    left = times

    def fault(sql: str, run: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        nonlocal left
        if not sql.startswith(statement) or left == 0:
            return run()
        left -= 1
        if after:
            run()
        raise sqlite_error(code)

    return fault


@pytest.mark.parametrize("after", [False, True], ids=["before it ran", "after it ran"])
@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL])
async def test_an_error_out_of_commit_itself_leaves_the_outcome_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool, code: int
) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    writers[0].fault = failing("COMMIT", code, after=after)
    failed = await failure(store, "perhaps")
    assert failed.outcome == "unknown"
    assert (await inbox(store) == [message("perhaps").data]) is after
    await store.commit([deliver("after")])
    assert (await inbox(store))[-1] == message("after").data
    await store.close()


async def test_a_rollback_that_fails_undoes_the_batch_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    first, second = failing("UPDATE meta", sqlite3.SQLITE_FULL), failing("ROLLBACK", sqlite3.SQLITE_IOERR)
    writers[0].fault = lambda sql, run: first(sql, lambda: second(sql, run))
    assert (await failure(store)).outcome == "not_applied"
    await store.commit([deliver("after")])
    assert await inbox(store) == [message("after").data]
    assert len(writers) == 2
    await store.close()


STATEMENTS = ["BEGIN IMMEDIATE", "SELECT value FROM meta", "UPDATE runs", "INSERT INTO inbox", "UPDATE meta"]


@pytest.mark.parametrize("after", [False, True], ids=["before it ran", "after it ran"])
@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY]
)
async def test_an_error_at_any_statement_before_undoes_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, code: int, after: bool
) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    writers[0].fault = failing(statement, code, after=after)
    with pytest.raises(StoreUnavailable) as failed:
        await store.commit([deliver("one"), deliver("two")])
    assert failed.value.outcome == "not_applied"
    assert await inbox(store) == []
    await store.commit([deliver("after")])
    assert await inbox(store) == [message("after").data]
    assert (await store.get_run("run-1")).inbox_last == 1  # type: ignore[union-attr]  # it is there
    await store.close()


async def test_a_connection_that_broke_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    writers[0].fault = failing("BEGIN", sqlite3.SQLITE_IOERR, times=1)
    await failure(store)
    await store.commit([deliver("after")])
    assert len(writers) == 2
    with pytest.raises(sqlite3.ProgrammingError):
        writers[0].real.execute("SELECT 1")
    await store.close()


async def test_a_file_that_vanished_is_not_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    writers[0].fault = failing("BEGIN", sqlite3.SQLITE_IOERR)
    await failure(store)
    names = os.listdir(tmp_path)
    for name in names:
        os.rename(tmp_path / name, tmp_path / f"{name}.away")
    failed = await failure(store)
    assert "there is no such file" in str(failed)
    assert "shop.db" not in os.listdir(tmp_path)
    for name in names:
        os.rename(tmp_path / f"{name}.away", tmp_path / name)
    await store.commit([deliver("after")])
    assert await inbox(store) == [message("after").data]
    await store.close()


async def test_a_bug_in_a_statement_is_not_called_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    writers[0].fault = failing("UPDATE runs", sqlite3.SQLITE_CONSTRAINT_CHECK)
    with pytest.raises(StoreError, match="which should never happen") as failed:
        await store.commit([deliver()])
    assert not isinstance(failed.value, StoreUnavailable)
    assert await inbox(store) == []
    await store.close()


async def test_a_reader_that_fails_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[Connection] = []
    open_reader = files.open_reader

    def tapped(path: str) -> Connection:
        readers.append(Connection(open_reader(path)))
        return readers[-1]

    monkeypatch.setattr(files, "open_reader", tapped)
    store = await new_store(tmp_path)
    await inbox(store)
    readers[0].fault = failing("SELECT", sqlite3.SQLITE_IOERR)
    with pytest.raises(StoreUnavailable):
        await store.get_run("run-1")
    assert await store.get_run("run-1") is not None
    assert len(readers) == 2
    await store.close()


async def test_an_outage_of_the_watch_is_not_the_waiters_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = tap_writers(monkeypatch)
    store = await new_store(tmp_path)
    writers[0].fault = failing("PRAGMA data_version", sqlite3.SQLITE_IOERR, times=3)
    waiting = asyncio.create_task(store.wait("runs", store.seen("runs"), 3_600))
    await asyncio.sleep(0)
    await store.commit([deliver()])
    async with asyncio.timeout(30):
        await waiting
    await store.close()


async def test_sharing_a_file_with_an_old_sqlite_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, other = await new_store(tmp_path), SQLiteStore(tmp_path / "shop.db")
    for _ in range(3):
        waiting = asyncio.create_task(store.wait("runs", store.seen("runs"), 3_600))
        await asyncio.sleep(0)
        await other.commit([deliver()])
        async with asyncio.timeout(30):
            await waiting
    warned = [record for record in caplog.records if record.levelno == logging.WARNING and "rare bug" in record.message]
    assert len(warned) == (sqlite3.sqlite_version_info < (3, 51, 3))
    await store.close()
    await other.close()
