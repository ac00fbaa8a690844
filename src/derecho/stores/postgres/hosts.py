"""Reaching a server: which host, within what time, and whose history it has.

The host that was good last is asked first. A host whose timeline is older than one that we have seen is an old primary
that came back: it is passed over. Where the database goes on from another history than ours (a standby was promoted, a
backup restored), a new `epoch` begins: what was acknowledged last may be gone, and with it what we believe to hold.
"""

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from typing import Any, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from derecho.stores.postgres.address import Address

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
_Plain: Any = asyncpg.Connection

log = logging.getLogger("derecho.stores.postgres")

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection until it is ready."""

SETTINGS = {
    "application_name": "derecho",
    "statement_timeout": "30000",
    "idle_in_transaction_session_timeout": "2000",  # an engine that is stopped inside a claim must not keep its rows
    # Statements are short and their plans known: one plan for ever, by index, whatever the statistics say today.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
}
_AT_LEAST_ON = """
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')
"""
_LINEAGE = """
SELECT system_identifier AS system, ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint
    AS timeline, (pg_current_wal_insert_lsn() - '0/0')::bigint AS position
FROM pg_control_system()
"""
Troubles = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_types: dict[tuple[object, ...], Any] = {}
"""What servers have said about the types of our schemas. No id is given to another type, and none of them changes."""


class _Learned(_Plain):  # type: ignore[misc]  # its stubs leave out what is overridden
    """A connection that knows of our types what another one has heard: to ask costs more than what it is asked for."""

    database: tuple[object, ...] = ()  # its last item is our schema

    async def _introspect_types(self, typeoids: Collection[int], *rest: Any) -> Any:
        key = (*self.database, frozenset(typeoids))
        if key in _types:
            return _types[key]
        found = await super()._introspect_types(typeoids, *rest)
        with suppress(TypeError, LookupError):  # another asyncpg may answer in another form: then each one asks
            if self.database and {row["ns"] for row in found[0]} <= {"pg_catalog", self.database[-1]}:
                _types[key] = found
        return found


class Hosts:
    """The hosts of an address. `epoch`: how often the database has gone on from another history than ours."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._order = address.hosts
        self._seen: asyncpg.Record | None = None  # which history there is: each promotion begins a new timeline
        self.epoch = 0

    async def connect(self) -> Connection:
        """To a host that can be written and goes on from our history; the first time to the newest of all."""
        found: dict[str, tuple[asyncpg.Record, Connection]] = {}
        error: Exception = OSError("the address names no host")
        is_first = self._seen is None
        try:
            for host in self._order:
                try:
                    found[host] = await self._reach(host)
                    if not is_first:
                        break
                except Troubles as exc:
                    error = exc
            if not found:
                raise error
            newest = max(found, key=lambda host: found[host][0]["timeline"])
            seen, connection = found.pop(newest)
        finally:
            for _, other in found.values():
                other.terminate()
        self._seen = self._seen or seen
        self._order = [newest, *(host for host in self._order if host != newest)]
        return connection

    async def _reach(self, host: str) -> tuple[asyncpg.Record, Connection]:
        prepared, before = self._address.prepared, self._seen
        connection = await asyncpg.connect(
            host,
            connection_class=_Learned,
            timeout=CONNECT_TIMEOUT,
            statement_cache_size=200 if prepared else 0,
            target_session_attrs=SessionAttribute.read_write,
            server_settings=SETTINGS if prepared else None,
        )
        timer = asyncio.get_running_loop().call_later(CONNECT_TIMEOUT, connection.terminate)
        try:
            if prepared and self._address.durable:
                await connection.execute(_AT_LEAST_ON)
            (seen,) = await connection.fetch(_LINEAGE)
            connection.database = (host, seen["system"], seen["timeline"], self._address.schema)
            if before is not None:
                self._compare(seen, before)
            return seen, connection
        except BaseException:
            connection.terminate()
            raise
        finally:
            timer.cancel()

    def _compare(self, seen: asyncpg.Record, before: asyncpg.Record) -> None:
        """Refuse a server that lags behind; begin an epoch where it has another history, or a part of ours only.

        `before`: what was known before it was asked.
        """
        known, lost = self._seen or before, before["position"] - seen["position"]
        if seen["system"] == known["system"] and seen["timeline"] < known["timeline"]:
            raise ConnectionRefusedError(f"an old primary that came back: {seen}, but the database went on to {known}")
        self._seen = seen
        if seen[:2] != known[:2] or (seen[:2] == before[:2] and lost > 0):
            self.epoch += 1
            text = "database %s goes on from another history: %s, before that %s; what was acknowledged there and did "
            text += "not come here is lost (at least %d bytes of it), and all leases are taken anew"
            log.error(text, self._address.shown, seen, before, max(0, lost))
