"""The address of a PostgreSQL store: what asyncpg needs, and our own options, which asyncpg must not see."""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from derecho.errors import StoreError
from derecho.stores.sql import load

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,55}")
_OURS = re.compile(r"\bderecho\.(?=[a-z])")
_ON_OFF = {"on": True, "off": False}


class Address(NamedTuple):
    """`dsn` is for asyncpg. `prepared`: statements may be prepared, so nobody stands between us and the server's
    session. `durable`: a server that may forget what it acknowledged is refused."""

    dsn: str
    schema: str
    prepared: bool
    durable: bool

    @property
    def hosts(self) -> list[str]:
        """An address for each host before the path; hosts in the query are one."""
        scheme, _, rest = self.dsn.partition("://")
        authority, slash, path = rest.partition("/")
        user, at, hosts = authority.rpartition("@")
        return [f"{scheme}://{user}{at}{host}{slash}{path}" for host in hosts.split(",")]

    @property
    def shown(self) -> str:
        """For people; without passwords."""
        shown = re.sub(r"(?<=//)([^/@:]*):[^/]*@", r"\1:***@", self.dsn)
        return re.sub(r"(?<=[?&])(password|sslpassword)=[^&]*", r"\1=***", shown)

    def statements(self, name: str) -> dict[str, str]:
        """The statements of a file, in this schema."""
        return {key: self.in_schema(sql) for key, sql in load(f"postgres/{name}", "$").items()}

    def in_schema(self, sql: str) -> str:
        return sql if self.schema == "derecho" else _OURS.sub(f'"{self.schema}".', sql)


def parse(dsn: str, schema: str) -> Address:
    """Take our options out of an address: `schema=NAME`, `prepared=off`, `durable=off`."""
    if not re.match(r"postgres(ql)?://", dsn):
        raise StoreError("the address of a PostgreSQL store is postgresql://user@host/database")
    start, _, query = dsn.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    schema = given.pop("schema", schema)
    if not _SCHEMA.fullmatch(schema):
        raise StoreError(f"{schema!r} cannot name a schema: use small letters, digits and underscores, at most 56")
    flags = {}
    for name in ("prepared", "durable"):
        value = given.pop(name, "on")
        if value not in _ON_OFF:
            raise StoreError(f"{name}={value!r} in the address of a store: it is on or off")
        flags[name] = _ON_OFF[value]
    return Address(f"{start}?{urlencode(given)}" if given else start, schema, **flags)
