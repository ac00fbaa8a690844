"""W10: whether throughput depends on how many closed runs are stored.

A few real runs are copied under new ids, in bulk and by the database itself, until there are enough. The copies are
what a million finished runs leave behind (rows, sizes, indexes, ids that grow with time), only that the texts of their
histories name the originals.
"""

import asyncio
import sqlite3
import statistics
from contextlib import closing
from pathlib import Path

from benchmarks.definitions import one_activity
from benchmarks.measure import Figure, Setup, Workload
from benchmarks.server import settle
from benchmarks.throughput import run_all

ORIGINALS, ROUNDS = 100, 5

# `n` is the number of a copy. Ids are UUIDv7: a millisecond each, then chance.
_SQLITE_ID = (
    "substr(printf('%012x', 1600000000000 + n), 1, 8) || '-' || substr(printf('%012x', 1600000000000 + n), 9) || '-7'"
    " || lower(substr(hex(randomblob(2)), 2) || '-a' || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
)
_SQLITE = f"""
CREATE TEMP TABLE originals AS
    SELECT row_number() OVER (ORDER BY run_id) - 1 AS place, run_id FROM runs WHERE workflow_type = 'one-activity'
    LIMIT {ORIGINALS};
CREATE UNIQUE INDEX temp.places ON originals (place);
CREATE TEMP TABLE copies AS
    WITH RECURSIVE numbers (n) AS (SELECT {{first}} UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {{last}})
    SELECT n, {_SQLITE_ID} AS run_id, originals.run_id AS original
    FROM numbers CROSS JOIN originals ON originals.place = n % {ORIGINALS};
INSERT INTO runs SELECT {{run}} FROM copies CROSS JOIN runs AS old ON old.run_id = copies.original ORDER BY n;
INSERT INTO history SELECT {{history}} FROM copies CROSS JOIN history AS old ON old.run_id = copies.original ORDER BY n;
"""
_POSTGRES_ID = (
    "substr(lpad(to_hex(1600000000000 + n), 12, '0'), 1, 8) || '-' || substr(lpad(to_hex(1600000000000 + n), 12, '0'),"
    " 9) || '-7' || substr(md5(random()::text), 1, 3) || '-a' || substr(md5(random()::text), 1, 3) || '-'"
    " || substr(md5(random()::text), 1, 12)"
)
_POSTGRES = f"""
SET search_path = derecho;
CREATE TEMP TABLE originals AS
    SELECT row_number() OVER (ORDER BY run_id) - 1 AS place, run_id FROM runs WHERE workflow_type = 'one-activity'
    LIMIT {ORIGINALS};
CREATE TEMP TABLE copies AS
    SELECT n, {_POSTGRES_ID} COLLATE "C" AS run_id, originals.run_id AS original
    FROM generate_series({{first}}::bigint, {{last}} - 1) AS n JOIN originals ON originals.place = n % {ORIGINALS};
INSERT INTO runs SELECT {{run}} FROM copies JOIN runs AS old ON old.run_id = copies.original ORDER BY n;
INSERT INTO history SELECT {{history}} FROM copies JOIN history AS old ON old.run_id = copies.original ORDER BY n;
"""
_INSTEAD = {
    "run_id": "copies.run_id",
    "chain_id": "copies.run_id",
    "workflow_id": "'stored-' || n",
    "number": "1",
    "started_at": "1600000000000000 + n * 1000",
    "closed_at": "1600000000000000 + n * 1000 + 500",
}


def _columns(names: list[str]) -> str:
    return ", ".join(_INSTEAD.get(name, f"old.{name}") for name in names)


def fill_sqlite(path: Path, first: int, last: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        columns = {
            table: _columns([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
            for table in ("runs", "history")
        }
        connection.execute("PRAGMA cache_size = -262144")
        connection.executescript(
            "BEGIN;"
            + _SQLITE.format(first=first, last=last, run=columns["runs"], history=columns["history"])
            + "COMMIT; PRAGMA wal_checkpoint(TRUNCATE);"
        )


async def fill_postgres(url: str, first: int, last: int) -> None:
    import asyncpg  # the other stores are measured without it

    connection = await asyncpg.connect(url)
    try:
        columns = {}
        for table in ("runs", "history"):
            names = await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
                f"derecho.{table}",
            )
            columns[table] = _columns([row[0] for row in names])
        await connection.execute(
            _POSTGRES.format(first=first, last=last, run=columns["runs"], history=columns["history"])
        )
    finally:
        await connection.close()
    await settle(url)


async def fill(setup: Setup, first: int, last: int) -> None:
    if setup.kind.is_postgres:
        await fill_postgres(setup.url, first, last)
    else:
        fill_sqlite(setup.directory / "bench.db", first, last)


async def throughput(setup: Setup) -> tuple[float, float]:
    """Workflows a second, and CPU seconds for each (the server's too): medians."""
    count, rates, costs = setup.count(2_000), [], []
    async with setup.engine() as engine:
        await run_all(engine.client, one_activity, list(range(ORIGINALS)))
        for _ in range(ROUNDS):
            watch = setup.watch()
            assert await run_all(engine.client, one_activity, list(range(count))) == list(range(count))
            rates.append(count / watch.wall)
            costs.append((watch.cpu + watch.server) / count)
            await asyncio.sleep(0.1)
    await setup.store.close()
    return statistics.median(rates), statistics.median(costs)


async def many_stored(setup: Setup) -> list[Figure]:
    few, many = setup.count(10_000), setup.count(1_000_000)
    async with setup.engine() as engine:
        await run_all(engine.client, one_activity, list(range(ORIGINALS)))
    await setup.store.close()
    await fill(setup, 0, few)
    rate_few, cost_few = await throughput(setup)
    await fill(setup, few, many)
    rate_many, cost_many = await throughput(setup)
    return [
        Figure(f"workflows/s, {few:,} stored", rate_few, "1/s", "higher"),
        Figure(f"workflows/s, {many:,} stored", rate_many, "1/s", "higher"),
        Figure("what is left of the throughput", rate_many / rate_few * 100, "%", "higher"),
        Figure("growth of the CPU per workflow", cost_many / cost_few, "x"),
    ]


WORKLOADS = [
    Workload(
        "W10",
        "2,000 workflows with one activity, beside 10,000 and 1,000,000 closed runs",
        many_stored,
        ("sqlite", "sqlite-normal", "postgres"),
    )
]
