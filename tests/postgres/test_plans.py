"""With many stored rows, no statement of a hot path reads a whole table, and claims lock no more than they take."""

import asyncio
import os
import re

import asyncpg
import pytest

from derecho import PostgresStore
from derecho.stores.postgres import address as addresses

ROWS = int(os.environ.get("DERECHO_ROWS", "100000"))
SMALL = {"workers", "migrations"}
FILL = """
INSERT INTO derecho.runs SELECT 1, 'run-' || n, 'w-' || n, 'order', 'default',
    CASE WHEN n % 10 = 0 THEN 'running' ELSE 'completed' END, 1, 'chain-' || n, n,
    CASE WHEN n % 10 = 0 THEN NULL ELSE n END, 3, 9, 'd', 1, NULL, NULL, NULL, NULL
FROM generate_series(1, $rows) AS n;
INSERT INTO derecho.live SELECT 'run-' || n, 'order', 3, 9, 'd', 1, 1, NULL, NULL, NULL, 0, NULL, 0, NULL, 'worker'
FROM generate_series(10, $rows, 10) AS n;
INSERT INTO derecho.history SELECT 'run-' || n, 1, 1, n, '[]', 'd' FROM generate_series(1, $rows) AS n;
INSERT INTO derecho.activities SELECT 'run-' || n, 5, 'w-' || n, 'order', 'charge', 'default', '{}', n, 4e18::bigint, 1,
    4e18::bigint, NULL, NULL, NULL, NULL, NULL, NULL, false, false FROM generate_series(10, $rows, 10) AS n;
INSERT INTO derecho.timers SELECT 'run-' || n, 7, 4e18::bigint FROM generate_series(10, $rows, 10) AS n;
INSERT INTO derecho.inbox SELECT 'run-' || n, 1, '{}' FROM generate_series(10, $rows, 10) AS n;
INSERT INTO derecho.message_keys SELECT 'chain-' || n, 'key' FROM generate_series(10, $rows, 10) AS n;
"""


@pytest.fixture
async def filled(schema_url: str, postgres_url: str) -> "asyncpg.Connection[asyncpg.Record]":
    store = PostgresStore(schema_url)
    await store.open()
    await store.close()
    connection = await asyncpg.connect(postgres_url)
    address = addresses.parse(schema_url, "")
    await connection.execute(address.in_schema(FILL.replace("$rows", str(ROWS))))
    await connection.execute(f"SET search_path = {address.schema}; ANALYZE; SET plan_cache_mode = force_generic_plan")
    return connection


async def test_no_statement_reads_a_whole_table(schema_url: str, filled: "asyncpg.Connection[asyncpg.Record]") -> None:
    address = addresses.parse(schema_url, "")
    seen = 0
    try:
        for file in ("commit", "work", "reads"):
            for statement, sql in address.statements(file).items():
                name = f"{file}_{statement}"
                await filled.execute(f"PREPARE {name} AS {sql.rstrip(';')}")
                count = await filled.fetchval(
                    "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1", name
                )
                arguments = f"({', '.join(['NULL'] * count)})" if count else ""
                plan = "\n".join(row[0] for row in await filled.fetch(f"EXPLAIN EXECUTE {name}{arguments}"))
                whole = set(re.findall(r"Seq Scan on (\w+)", plan)) - SMALL
                assert not whole, f"{name} reads all of {whole}:\n{plan}"
                seen += 1
        assert seen >= 25
    finally:
        await asyncio.wait_for(filled.close(), 5)
