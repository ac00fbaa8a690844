"""Which tests share an event loop."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """The suite's tests of the PostgreSQL store run on one loop, so that connections outlive a test."""
    if item.path.name == "test_postgres_conformance.py":
        item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)
