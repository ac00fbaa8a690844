"""The fixtures that the suite builds on the one that you write."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import StoreFactory, World


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest_asyncio.fixture
async def world(new_store: StoreFactory, clock: VirtualClock) -> AsyncIterator[World]:
    """The store under test, opened and empty."""
    store = new_store(clock)
    await store.open()
    yield World(store, clock)
    await store.close()
