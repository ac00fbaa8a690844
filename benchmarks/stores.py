"""The stores that are measured, each with the durability that its figures are for."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from derecho import MemoryStore, Store, open_store


class StoreKind(NamedTuple):
    name: str
    durability: str
    synchronous: str | None
    """Of SQLite; None for a store that is no database."""
    make: Callable[[Path], Store]


KINDS = {
    kind.name: kind
    for kind in (
        StoreKind("memory", "none", None, lambda _: MemoryStore()),
        StoreKind("sqlite", "WAL, synchronous=FULL", "FULL", lambda path: open_store(f"sqlite:///{path / 'bench.db'}")),
    )
}
