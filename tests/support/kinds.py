"""The kinds of store: what holds for one is tested on all of them."""

import pytest

from derecho import MemoryStore, PostgresStore, Store
from derecho.clock import Clock
from derecho.stores.sqlite import SQLiteStore

KINDS = ["memory", "sqlite", "postgres"]


def new_store(kind: str, request: pytest.FixtureRequest, clock: Clock | None = None) -> Store:
    """An empty store on `clock`; the caller closes it."""
    if kind == "memory":
        return MemoryStore(clock=clock)
    if kind == "sqlite":  # no test that uses this cuts the power
        return SQLiteStore(request.getfixturevalue("tmp_path") / "test.db", synchronous="normal", clock=clock)
    # Most of what such a test costs is the beginning of sessions. Two meet as well as four.
    return PostgresStore(request.getfixturevalue("empty_schema_url"), clock=clock, pool_size=2)


@pytest.fixture(params=KINDS)
def store_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty store of each kind."""
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/test.db"
    return str(request.getfixturevalue("empty_schema_url"))
