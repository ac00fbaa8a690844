"""The PostgreSQL store passes the suite."""

import pytest

from derecho.stores.postgres import PostgresStore
from derecho.testing.conformance import *  # noqa: F403  # the suite is imported as a whole
from derecho.testing.conformance import StoreFactory
from tests.support.schemas import schema_url  # noqa: F401  # a fixture


@pytest.fixture
def new_store(schema_url: str) -> StoreFactory:  # noqa: F811  # it is the fixture
    return lambda clock: PostgresStore(schema_url, clock=clock)
