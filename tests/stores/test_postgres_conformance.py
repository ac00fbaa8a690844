"""The PostgreSQL store passes the suite."""

import pytest

from derecho.stores.postgres import PostgresStore
from derecho.testing.conformance import *  # noqa: F403  # the suite is imported as a whole
from derecho.testing.conformance import StoreFactory


@pytest.fixture
def new_store(empty_schema_url: str, request: pytest.FixtureRequest) -> StoreFactory:  # it is the fixture
    # Half of the suite are pairs of changes in one batch: without a second connection, which would only carry notices,
    # they take half the time.
    is_pair = request.node.name.startswith("test_each_pair_in_each_order_in_one_batch")
    return lambda clock: PostgresStore(empty_schema_url, clock=clock, pool_size=1 if is_pair else 4)
