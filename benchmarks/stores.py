"""The stores that are measured, each with the durability that its figures are for."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.server import DURABILITY
from derecho import MemoryStore, SQLiteStore, Store, open_store


class StoreKind(NamedTuple):
    name: str
    durability: str
    synchronous: str | None
    """Of SQLite; None for another store."""
    make: Callable[[Path, str], Store]
    """In a directory, or in the database of an address."""

    @property
    def is_postgres(self) -> bool:
        return self.name == "postgres"


KINDS = {
    kind.name: kind
    for kind in (
        StoreKind("memory", "none", None, lambda path, url: MemoryStore()),
        StoreKind("sqlite", "WAL, synchronous=FULL", "FULL", lambda path, url: SQLiteStore(path / "bench.db")),
        StoreKind(
            "sqlite-normal",
            "WAL, synchronous=NORMAL",
            "NORMAL",
            lambda path, url: SQLiteStore(path / "bench.db", synchronous="normal"),
        ),
        StoreKind("postgres", DURABILITY, None, lambda path, url: open_store(url)),
    )
}
