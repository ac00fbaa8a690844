"""Schemas in the tests' PostgreSQL server: a new one, or one that is as good as new and costs less."""

import asyncio
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from derecho.stores.postgres import PostgresStore

END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
SHAPE = """
WITH schema AS MATERIALIZED (SELECT oid FROM pg_namespace WHERE nspname = $1), relation AS MATERIALIZED (
    SELECT pg_class.oid, relname FROM pg_class JOIN schema ON relnamespace = schema.oid
)
SELECT relation::text FROM relation
UNION ALL SELECT (attrelid, attname, atttypid, attnotnull, atthasdef, attisdropped)::text
    FROM pg_attribute JOIN relation ON attrelid = relation.oid
UNION ALL SELECT (indexrelid, indkey, indisunique, indexprs, indpred)::text
    FROM pg_index JOIN relation ON indexrelid = relation.oid
UNION ALL SELECT (pg_constraint.oid, conrelid, conname)::text
    FROM pg_constraint JOIN schema ON connamespace = schema.oid
ORDER BY 1
"""
TABLES = ("runs", "live", "history", "inbox", "message_keys", "activities", "timers", "workers")


def with_schema(url: str, schema: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}schema={schema}&durable=off"


@pytest.fixture
def schema_url(postgres_url: str) -> str:
    """The address of a schema that does not exist yet. The server goes away in the end, and it with it."""
    return with_schema(postgres_url, f"t_{uuid.uuid4().hex[:12]}")


class Janitor:
    """A connection on a thread of its own, so that fixtures of any loop may use it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.shapes: dict[str, Any] = {}  # of schemas as they were made
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection: asyncpg.Connection[asyncpg.Record] = self.do(asyncpg.connect(url))

    def do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def execute(self, sql: str) -> None:
        self.do(self._connection.execute(sql))

    def fetch(self, sql: str, *parameters: object) -> Any:
        return self.do(self._connection.fetch(sql, *parameters))

    def empty(self, schema: str) -> None:
        """Delete all rows of a store."""
        self.execute("; ".join(f"DELETE FROM {schema}.{table}" for table in TABLES))

    def clean(self, schema: str) -> str:
        """Make a shared schema as good as new; gives its address.

        Whatever an earlier test has left at work in this database is ended first: a process that was killed may have
        sent a statement that would be carried out now. A schema whose tables were changed is made anew.
        """
        self.execute("RESET ALL")
        self.execute(END_OTHERS)
        if self.fetch(SHAPE, schema) != self.shapes[schema]:
            self.make(schema)
        self.empty(schema)
        return with_schema(self.url, schema)

    def make(self, schema: str) -> None:
        """Make a schema that is up to date, in the place of the one that there is."""

        async def migrate() -> None:
            store = PostgresStore(with_schema(self.url, schema))
            await store.open()
            await store.close()

        self.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        self.do(migrate())
        self.shapes[schema] = self.fetch(SHAPE, schema)

    def close(self) -> None:
        self.do(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def janitor(postgres_url: str) -> Iterator[Janitor]:
    janitor = Janitor(postgres_url)
    yield janitor
    janitor.close()


@pytest.fixture(scope="session")
def shared_schema(janitor: Janitor) -> str:
    """The name of a schema that is up to date."""
    schema = f"m_{uuid.uuid4().hex[:12]}"
    janitor.make(schema)
    return schema


@pytest.fixture
def empty_schema_url(janitor: Janitor, shared_schema: str) -> str:
    """The address of a schema without rows; emptying one is quicker than making one."""
    return janitor.clean(shared_schema)
