"""Fixtures that every test may use."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.kinds import store_url
from tests.support.postgres import PostgresMissing, PostgresServer, missing
from tests.support.schemas import empty_schema_url, janitor, schema_url, shared_schema

# A busy machine is no bug, so nothing that Hypothesis runs is timed; and each run of the tests tries the same examples.
settings.register_profile("derecho", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.load_profile("derecho")

__all__ = ["empty_schema_url", "janitor", "schema_url", "shared_schema", "store_url"]


def pytest_collection_finish() -> None:
    """Keep the collector from going through all that was imported and collected, each time that it looks."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty database on a real PostgreSQL. Each xdist worker has its own."""
    try:
        with PostgresServer() as server:
            yield server.url
    except PostgresMissing as reason:
        missing(reason)
