"""Bringing the schema up to date: one engine does it, the others wait; a schema that is newer than the code is refused.

A role that may not change the schema can work with one that is up to date.
"""

import asyncpg

from derecho.errors import StoreError
from derecho.stores.postgres.address import Address
from derecho.stores.postgres.hosts import Connection, log
from derecho.stores.sql import migrations

OLDEST_SERVER = 140000
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('derecho ' || $1, 0))"
_MIGRATIONS = migrations("postgres")


async def prepare(connection: Connection, address: Address) -> None:
    """Check the server, apply the migrations that are missing; raises StoreError with the remedy."""
    await _check(connection, address)
    if await _newest(connection, address) == len(_MIGRATIONS):
        return
    try:
        async with connection.transaction():
            await connection.execute(_LOCK, address.schema)
            found = await _newest(connection, address)
            if found == 0:
                await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{address.schema}"')
            for step in _MIGRATIONS[found:]:
                await connection.execute(address.in_schema(step.sql))
                await connection.execute(
                    address.in_schema("INSERT INTO derecho.migrations (number, name) VALUES ($1, $2)"),
                    *(step.number, step.name),
                )
    except asyncpg.InsufficientPrivilegeError as exc:
        raise StoreError(
            f"database {address.shown}: schema {address.schema} is not up to date and this role may not change it: "
            f"start once as its owner, see docs/postgres.md ({exc})"
        ) from exc


async def _newest(connection: Connection, address: Address) -> int:
    """The number of the newest migration that was applied, 0 without any."""
    # Not to_regclass: behind the lock it would still answer from this session's cache.
    there = "SELECT true FROM pg_tables WHERE schemaname = $1 AND tablename = 'migrations'"
    if not await connection.fetchval(there, address.schema):
        return 0
    newest: int = await connection.fetchval(
        address.in_schema("SELECT coalesce(max(number), 0)::int FROM derecho.migrations")
    )
    if newest > len(_MIGRATIONS):
        raise StoreError(
            f"database {address.shown}: schema {address.schema} has migration {newest}, made by a newer release of "
            f"Derecho; this one knows {len(_MIGRATIONS)}: upgrade it, or use another schema"
        )
    return newest


async def _check(connection: Connection, address: Address) -> None:
    """What the server is, and whether it keeps what it acknowledges."""
    state = await connection.fetchrow(address.statements("reads")["state"])
    assert state is not None  # noqa: S101  # a SELECT without FROM has one row
    where = f"database {address.shown}"
    if state["version"] < OLDEST_SERVER:
        raise StoreError(f"{where} runs on PostgreSQL {state['version'] // 10000}: Derecho needs 14 or newer")
    if state["in_recovery"]:
        raise StoreError(f"{where} is a standby, which cannot be written: name the primary, or all hosts")
    weak = [name for name in ("fsync", "full_page_writes") if state[name] == "off"]
    if state["synchronous_commit"] in ("off", "local", "remote_write"):
        weak.append("synchronous_commit")
    if weak and address.durable:
        raise StoreError(
            f"{where} may forget what it acknowledged, because {' and '.join(weak)} is not on: change that, or add "
            "durable=off to the address if you can live with it"
        )
    if weak:
        log.warning("%s may forget what it acknowledged at a power cut: %s is not on", where, " and ".join(weak))
