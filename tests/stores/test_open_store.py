"""A store is named by an address; a wrong one says what would be right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from derecho.errors import StoreError
from derecho.stores import open_store


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_memory_is_a_store(url: str) -> None:
    assert open_store(url).url == "memory:"


@pytest.mark.parametrize("url", ["sqlite:///shop.db", "sqlite:shop.db", "sqlite:./shop.db"])
def test_a_relative_file_is_in_the_working_directory(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store(url).url == f"sqlite:///{tmp_path / 'shop.db'}"


@pytest.mark.parametrize("slashes", ["sqlite:///", "sqlite:"])
def test_an_absolute_file_is_anywhere(slashes: str, tmp_path: Path) -> None:
    path = tmp_path / "a shop's 100% #1.db"
    assert open_store(f"{slashes}{path}").url == f"sqlite:///{path}"


def test_the_address_that_a_store_tells_opens_it_again(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'shop.db'}")
    assert open_store(store.url).url == store.url


def test_nothing_is_opened_by_naming_it(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path / 'shop.db'}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql:db", "postgresql://user@host/database"),
        ("postgresql://user:secret@host/db?schema=No", "cannot name a schema"),
        ("postgresql://user:secret@host/db?prepared=maybe", "it is on or off"),
        ("mysql://host/db", "memory:, sqlite:///file.db or postgresql"),
        ("shop.db", "memory:, sqlite:///file.db or postgresql"),
        ("", "memory:, sqlite:///file.db or postgresql"),
        ("sqlite://shop.db", "sqlite:///relative.db"),
        ("sqlite:", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite::memory:", "use memory:"),
        ("sqlite:///shop.db?mode=ro", "has options"),
        ("memory:shop", "memory:, sqlite:///file.db or postgresql"),
    ],
)
def test_a_wrong_address_says_what_would_be_right(url: str, advice: str) -> None:
    with pytest.raises(StoreError, match=advice) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


def test_the_address_of_a_server_is_told_without_its_passwords() -> None:
    store = open_store("postgresql://ann:secret@one:5432,two:5433/shop?schema=orders&password=secret&durable=off")
    assert store.url == "postgresql://ann:***@one:5432,two:5433/shop?password=***"


def test_without_its_driver_postgresql_says_what_to_install() -> None:
    program = """
import sys
sys.modules["asyncpg"] = None
import derecho
try:
    derecho.open_store("postgresql://host/shop")
except derecho.StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "pip install 'derecho-workflows[postgres]'" in done.stdout


def test_sqlite_is_imported_when_it_is_needed() -> None:
    program = "import sys, derecho.stores as s; s.open_store('memory:'); print('sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
