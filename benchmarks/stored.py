"""W10: whether throughput depends on how many closed runs are stored.

A few real runs are copied under new ids, in bulk and by the database itself, until there are enough. The copies are
what a million finished runs leave behind (rows, sizes, indexes, ids that grow with time), only that the texts of their
histories name the originals.
"""

import sqlite3
import statistics
from contextlib import closing
from pathlib import Path

from benchmarks.definitions import ACTIVITIES, WORKFLOWS, one_activity
from benchmarks.measure import Figure, Setup, Workload
from benchmarks.server import settle
from benchmarks.throughput import run_all
from derecho import Engine

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
SET search_path = {{schema}};
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


def fill_sqlite(path: Path, count: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        columns = {
            table: _columns([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
            for table in ("runs", "history")
        }
        connection.execute("PRAGMA cache_size = -262144")
        connection.executescript(
            "BEGIN;"
            + _SQLITE.format(first=0, last=count, run=columns["runs"], history=columns["history"])
            + "COMMIT; PRAGMA wal_checkpoint(TRUNCATE);"
        )


async def fill_postgres(url: str, schema: str, count: int) -> None:
    import asyncpg  # the other stores are measured without it

    connection = await asyncpg.connect(url)
    try:
        columns = {}
        for table in ("runs", "history"):
            names = await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
                f"{schema}.{table}",
            )
            columns[table] = _columns([row[0] for row in names])
        await connection.execute(
            _POSTGRES.format(schema=schema, first=0, last=count, run=columns["runs"], history=columns["history"])
        )
    finally:
        await connection.close()
    await settle(url)


class Filled:
    """A store beside so many closed runs, in a file or a schema of its own."""

    def __init__(self, setup: Setup, name: str, count: int) -> None:
        self._setup = setup
        self._name = name
        self._directory = setup.directory / name
        self._url = f"{setup.url}&schema={name}"
        self.count = count
        self.rates: list[float] = []
        self.costs: list[float] = []
        self._directory.mkdir()
        self.store = setup.kind.make(self._directory, self._url)

    def _engine(self) -> Engine:
        return Engine(self.store, workflows=WORKFLOWS, activities=ACTIVITIES)

    async def fill(self) -> None:
        async with self._engine() as engine:
            await run_all(engine.client, one_activity, list(range(ORIGINALS)))
        await self.store.close()
        if self._setup.kind.is_postgres:
            await fill_postgres(self._setup.url, self._name, self.count)
        else:
            fill_sqlite(self._directory / "bench.db", self.count)

    async def measure(self, count: int) -> None:
        async with self._engine() as engine:
            await run_all(engine.client, one_activity, list(range(ORIGINALS)))
            watch = self._setup.watch()
            assert await run_all(engine.client, one_activity, list(range(count))) == list(range(count))
            self.rates.append(count / watch.wall)
            self.costs.append((watch.cpu + watch.server) / count)


async def many_stored(setup: Setup) -> list[Figure]:
    few, many = (Filled(setup, name, setup.count(full)) for name, full in (("few", 10_000), ("many", 1_000_000)))
    for filled in (few, many):
        await filled.fill()
    for _ in range(ROUNDS):  # in turns, so that what else the machine does hits both
        for filled in (few, many):
            await filled.measure(setup.count(2_000))
    for filled in (few, many):
        await filled.store.close()
    left = [large / small * 100 for small, large in zip(few.rates, many.rates, strict=True)]
    growth = [large / small for small, large in zip(few.costs, many.costs, strict=True)]
    return [
        Figure(f"workflows/s, {few.count:,} stored", statistics.median(few.rates), "1/s", "higher"),
        Figure(f"workflows/s, {many.count:,} stored", statistics.median(many.rates), "1/s", "higher"),
        Figure("what is left of the throughput", statistics.median(left), "%", "higher"),
        Figure("growth of the CPU per workflow", statistics.median(growth), "x"),
    ]


WORKLOADS = [
    Workload(
        "W10",
        "2,000 workflows with one activity, beside 10,000 and 1,000,000 closed runs",
        many_stored,
        ("sqlite", "sqlite-normal", "postgres"),
    )
]
