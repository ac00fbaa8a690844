"""The PostgreSQL store passes the suite."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from derecho.clock import Clock
from derecho.stores.postgres import PostgresStore
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance import *  # noqa: F403  # the suite is imported as a whole
from derecho.testing.conformance import World
from tests.support.schemas import Janitor


class Borrower(PostgresStore):
    """A store that works on another one's connections, and leaves them open for the next.

    A server needs longer to begin a session, and to plan its first statements, than for all that most tests ask of it.
    """

    def __init__(self, url: str, clock: Clock, lender: PostgresStore) -> None:
        super().__init__(url, clock=clock)
        self._connections = lender._connections

    async def close(self) -> None:
        self._closed = True


@pytest.fixture(scope="module")
def clean_url(janitor: Janitor, shared_schema: str) -> str:
    return janitor.clean(shared_schema)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lender(clean_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(clean_url)
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture(loop_scope="module")  # type: ignore[no-redef]  # it replaces the one that was imported
async def world(
    request: pytest.FixtureRequest,
    janitor: Janitor,
    shared_schema: str,
    clean_url: str,
    lender: PostgresStore,
    clock: VirtualClock,
) -> AsyncIterator[World]:
    """The suite's own, on the loop of this module. Who borrows connections listens to nobody, which hints depend on."""
    janitor.empty(shared_schema)
    is_about_hints = request.cls.__name__ == "TestHints"
    store = PostgresStore(clean_url, clock=clock) if is_about_hints else Borrower(clean_url, clock, lender)
    await store.open()
    yield World(store, clock)
    await store.close()
