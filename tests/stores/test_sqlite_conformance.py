"""The SQLite store passes the suite. Its settings are the fast ones: power cuts are another test's matter."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from derecho.stores.sqlite import SQLiteStore
from derecho.stores.sqlite.connection import open_writer
from derecho.testing.conformance import *  # noqa: F403  # the suite is imported as a whole
from derecho.testing.conformance import StoreFactory


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema and nothing in it; copying it saves a migration per test."""
    path = tmp_path_factory.mktemp("empty") / "derecho.db"
    open_writer(str(path), "normal", create=True).close()
    return path


@pytest.fixture
def new_store(empty_database: Path, tmp_path: Path) -> Iterator[StoreFactory]:
    path = tmp_path / "derecho.db"
    shutil.copy(empty_database, path)
    yield lambda clock: SQLiteStore(path, synchronous="normal", clock=clock)
    path.unlink()
