"""Fixtures: every test runs on each kind of store, on a clock that the test moves."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from derecho import Store
from derecho.stores.sqlite import SQLiteStore
from derecho.testing.clock import VirtualClock
from tests.support.audits import assert_sound
from tests.support.kinds import KINDS, new_store


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, clock: VirtualClock) -> AsyncIterator[Store]:
    """An empty store of each kind, on `clock`."""
    store = new_store(request.param, request, clock)
    try:
        yield store
        await assert_sound(store)
    finally:
        await store.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    """A store in a file, on the machine's clock."""
    store = SQLiteStore(tmp_path / "real.db")
    yield store
    await store.close()
