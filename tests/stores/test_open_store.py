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
        ("postgresql://user:secret@host/db", "no PostgreSQL store yet"),
        ("postgres://host/db", "no PostgreSQL store yet"),
        ("mysql://host/db", "memory: or sqlite:///file.db"),
        ("shop.db", "memory: or sqlite:///file.db"),
        ("", "memory: or sqlite:///file.db"),
        ("sqlite://shop.db", "sqlite:///relative.db"),
        ("sqlite:", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite::memory:", "use memory:"),
        ("sqlite:///shop.db?mode=ro", "has options"),
        ("memory:shop", "memory: or sqlite:///file.db"),
    ],
)
def test_a_wrong_address_says_what_would_be_right(url: str, advice: str) -> None:
    with pytest.raises(StoreError, match=advice) as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


def test_sqlite_is_imported_when_it_is_needed() -> None:
    program = "import sys, derecho.stores as s; s.open_store('memory:'); print('sqlite3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
