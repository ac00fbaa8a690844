"""No statement of a hot path reads a whole table, however many rows there are and whatever the statistics say."""

import asyncio
import os
import re

import asyncpg
import pytest

from derecho import PostgresStore
from derecho.stores.postgres import address as addresses
from derecho.stores.postgres.hosts import SETTINGS

ROWS = int(os.environ.get("DERECHO_ROWS", "100000"))
SMALL = {"workers", "migrations"}
ONLY_WHAT_IS_SOUGHT = {"doomed_runs", "lost_activities"}
"""Indexes that are read from the first entry on, because they have no others."""
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


WHILE_SMALL = re.compile(r"using (activities|timers)_pkey")
"""Rows of a queue, which commits join with what they remove: a plan made while it was short is worse than one made
later, and is replaced when the table is analysed, which the server does within a minute."""

_SCAN = re.compile(r"(Seq|Index|Index Only|Bitmap Index) Scan (?:Backward )?(?:using (\w+) )?on (\w+)")


def read_whole(plan: list[str]) -> list[str]:
    """The steps of a plan that go through a table or an index from end to end; one with an order may have a limit."""
    found = []
    for step, following in zip(plan, [*plan[1:], ""], strict=True):
        scan = _SCAN.search(step)
        if scan is None or scan[3] in SMALL | ONLY_WHAT_IS_SOUGHT or scan[2] in ONLY_WHAT_IS_SOUGHT:
            continue
        if "Index Cond" not in following:
            found.append(step.strip())
    return found


async def plans(url: str, connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, list[str]]:
    """The plan of every statement, made once for all parameters."""
    found = {}
    address = addresses.parse(url, "")
    for file in ("commit", "work", "reads"):
        for statement, sql in address.statements(file).items():
            name = f"{file}_{statement}"
            await connection.execute(f"PREPARE {name} AS {sql.rstrip(';')}")
            count = await connection.fetchval(
                "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1", name
            )
            arguments = f"({', '.join(['NULL'] * count)})" if count else ""
            found[name] = [row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE {name}{arguments}")]
    return found


@pytest.mark.parametrize("rows", [0, 100, ROWS])
async def test_no_statement_reads_a_whole_table(schema_url: str, postgres_url: str, rows: int) -> None:
    """In a new database nothing is known of the tables; small ones would be cheap to read whole, until they grow."""
    store = PostgresStore(schema_url)
    await store.open()
    await store.close()
    elsewhere = {"plan_cache_mode": "force_generic_plan"}  # behind a pooler we choose no settings
    for settings in [SETTINGS, elsewhere] if rows == ROWS else [SETTINGS]:
        connection = await asyncpg.connect(postgres_url, server_settings=settings)
        try:
            if rows and settings is SETTINGS:
                fill = addresses.parse(schema_url, "").in_schema(FILL.replace("$rows", str(rows)))
                await connection.execute(f"{fill}; ANALYZE")
            found = await plans(schema_url, connection)
        finally:
            await asyncio.wait_for(connection.close(), 5)
        assert len(found) >= 25
        for kind in ("status", "type"):  # each by its own index, not by that of all runs with a filter
            assert f"runs_by_{kind}" in "".join(found[f"reads_list_by_{kind}"])
        for name, plan in found.items():
            whole = [step for step in read_whole(plan) if rows == ROWS or not WHILE_SMALL.search(step)]
            assert not whole, "\n".join([f"{name}:", *plan])
