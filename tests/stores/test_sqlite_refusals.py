"""A file that cannot be used is refused at once, and the message says what it is, where, and what to do."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from derecho.errors import StoreError, StoreUnavailable
from derecho.stores.sqlite import SQLiteStore
from derecho.stores.sqlite import connection as files
from tests.stores.faulty import run_process

OPEN_AS_NOBODY = """
    become_nobody()
    try:
        asyncio.run(SQLiteStore(sys.argv[1]).open())
    except StoreError as exc:
        say(f"{type(exc).__name__}: {exc}")
    else:
        say("opened")
"""


async def refusal(path: Path | str) -> str:
    """The message with which a file is refused for good."""
    store = SQLiteStore(path)
    with pytest.raises(StoreError) as refused:
        await store.open()
    await store.close()
    assert not isinstance(refused.value, StoreUnavailable)
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.fixture
def common_folder() -> Iterator[Path]:
    """A directory that every user may enter, unlike those of `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="derecho-"))
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


async def test_a_directory_is_no_database(tmp_path: Path) -> None:
    assert "it is a directory" in await refusal(tmp_path)


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    message = await refusal(tmp_path / "missing" / "shop.db")
    assert f"there is no directory {tmp_path / 'missing'}" in message
    assert not (tmp_path / "missing").exists()


async def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    await refusal(tmp_path / "file" / "shop.db")


@pytest.mark.parametrize("content", [b"dear diary " * 1_000, b"\0" * 4096, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_another_kind_of_file_is_no_database_and_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "diary.txt"
    path.write_bytes(content)
    message = await refusal(path)
    assert "not an SQLite database" in message or "damaged" in message
    assert path.read_bytes() == content


async def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "shop.db").touch()
    store = SQLiteStore(tmp_path / "shop.db")
    await store.open()
    assert await store.workers() == []
    await store.close()


@pytest.mark.parametrize("table", ["runs (a)", "history (a)", "meta (a)", "meta (key, value)"])
async def test_tables_of_another_program_are_left_alone(tmp_path: Path, table: str) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as other:
        other.execute(f"CREATE TABLE {table}")
    other.close()
    assert "belongs to something else" in await refusal(path)
    with sqlite3.connect(path) as other:
        assert len(other.execute("SELECT * FROM sqlite_schema WHERE type = 'table'").fetchall()) == 1
    other.close()


async def test_rows_of_ones_own_may_live_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE orders (id)")
    other.close()
    store = SQLiteStore(path)
    await store.open()
    await store.close()


async def test_a_schema_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE meta SET value = 99 WHERE key = 'schema'")
    other.close()
    message = await refusal(path)
    assert "has schema 99, made by a newer release" in message
    assert "upgrade" in message


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    assert "is damaged: restore a backup" in await refusal(path)


async def test_a_database_without_a_write_ahead_log_is_refused() -> None:
    with pytest.raises(StoreError, match="put it on a local file system"):
        files._use_wal(sqlite3.connect(":memory:"), "shop.db")


async def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    store = SQLiteStore(tmp_path / "shop.db")
    with pytest.raises(StoreError, match=r"needs 3\.37\.0 or newer"):
        await store.open()
    await store.close()


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_store_needs_a_file(path: str) -> None:
    with pytest.raises(StoreError, match="MemoryStore"):
        SQLiteStore(path)


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match='"full" or "normal"'):
        SQLiteStore(tmp_path / "shop.db", synchronous="off")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("folder_mode", "file_mode"),
    [(0o555, None), (0o555, 0o444), (0o777, 0o444), (0o777, 0o000), (0o000, 0o666)],
    ids=["new file, folder read-only", "all read-only", "file read-only", "file unreadable", "folder shut"],
)
async def test_what_may_not_be_written_is_refused_at_once(
    common_folder: Path, folder_mode: int, file_mode: int | None
) -> None:
    path = common_folder / "shop.db"
    if file_mode is not None:
        store = SQLiteStore(path)
        await store.open()
        await store.close()
        os.chmod(path, file_mode)
    os.chmod(common_folder, folder_mode)
    (said,) = run_process(OPEN_AS_NOBODY, path)
    assert said.startswith("StoreError: "), said
    assert str(path) in said
    assert "may not be written" in said or "cannot be opened" in said
    os.chmod(common_folder, 0o700)
    assert ("shop.db" in os.listdir(common_folder)) is (file_mode is not None), "nothing is made, nothing is removed"


async def test_a_refused_store_opens_once_the_cause_is_gone(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "later" / "shop.db")
    for _ in range(2):
        with pytest.raises(StoreError):
            await store.workers()
    (tmp_path / "later").mkdir()
    assert await store.workers() == []
    await store.close()
