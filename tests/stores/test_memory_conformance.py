"""The memory store passes the suite that it is the reference of."""

import pytest

from derecho.stores.memory import MemoryStore
from derecho.testing.conformance import *  # noqa: F403  # the suite is imported as a whole
from derecho.testing.conformance import StoreFactory


@pytest.fixture
def new_store() -> StoreFactory:
    return lambda clock: MemoryStore(clock=clock)
