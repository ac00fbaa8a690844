"""The PostgreSQL store passes the suite."""

import pytest

from derecho.stores.postgres import PostgresStore
from derecho.testing.conformance import *  # noqa: F403  # the suite is imported as a whole
from derecho.testing.conformance import StoreFactory


@pytest.fixture
def new_store(empty_schema_url: str) -> StoreFactory:  # it is the fixture
    return lambda clock: PostgresStore(empty_schema_url, clock=clock)
