"""What one connection has heard of our types the next one knows; what users may change is asked for each time."""

from collections.abc import Iterator
from typing import Any

import pytest

from derecho import PostgresStore
from derecho.journal.changes import CreateRun, Receipt, RegisterWorker, Transition
from derecho.journal.model import WorkerRow
from derecho.stores.postgres import hosts
from derecho.testing.conformance.kit import message, run_row
from tests.postgres.proxy import Proxy
from tests.postgres.test_lost_connections import socket_of, through
from tests.support.schemas import Janitor


@pytest.fixture(autouse=True)
def _nothing_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_types", {})


async def test_a_process_asks_about_our_types_once(empty_schema_url: str) -> None:
    asked: list[str] = []
    counts: list[int] = []
    async with Proxy(socket_of(empty_schema_url)) as proxy:

        def listen(sql: str) -> None:
            asked.extend([sql] if "typeinfo_tree" in sql else [])

        proxy.strike = listen
        for number in (1, 2):
            store = PostgresStore(through(proxy, empty_schema_url))
            (result,) = await store.commit([(CreateRun(run_row(number), (message(),)),)])
            assert isinstance(result, Receipt)
            await store.close()
            counts.append(len(asked))
    assert 0 < counts[0] == counts[1]


@pytest.fixture
def place(janitor: Janitor) -> Iterator[None]:
    janitor.execute("CREATE TYPE place AS (street text)")
    yield
    janitor.execute("DROP TYPE place")


@pytest.mark.usefixtures("place")
async def test_a_type_of_the_users_may_change(empty_schema_url: str, janitor: Janitor) -> None:
    found: list[Any] = []

    async def look(connection: Any) -> Transition:
        found.extend(await connection.execute("SELECT ROW('a street', 'a town')::place"))
        return (RegisterWorker(WorkerRow("w", "w", 0, [])),)

    async def look_before(connection: Any) -> Transition:
        found.extend(await connection.execute("SELECT ROW('a street')::place"))
        return (RegisterWorker(WorkerRow("w", "w", 0, [])),)

    for change, work in (("SELECT 1", look_before), ("ALTER TYPE place ADD ATTRIBUTE town text", look)):
        janitor.execute(change)
        store = PostgresStore(empty_schema_url)
        assert isinstance(await store.transact(work), Receipt)
        await store.close()
    assert [tuple(row[0]) for row in found] == [("a street",), ("a street", "a town")]
