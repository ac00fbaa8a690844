"""Memory: where runs, histories and queues are kept. Each store implements `derecho.journal.store.Store`."""

from derecho.errors import StoreError
from derecho.journal.store import Store


def open_store(url: str) -> Store:
    """A store by its address; nothing is opened yet. Raises StoreError for an address that names none.

    `memory:` is gone with the process. `sqlite:///orders.db` (or `sqlite:orders.db`) is a file in the working
    directory, `sqlite:////var/lib/shop/orders.db` one anywhere. `postgresql://user@host/database` is a schema in a
    PostgreSQL database, by default the schema "derecho"; docs/postgres.md has the options.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest.strip("/"):
        from derecho.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite" and colon:
        from derecho.stores.sqlite import SQLiteStore

        return SQLiteStore(_path(url, rest))
    if scheme in ("postgres", "postgresql") and colon:
        try:
            from derecho.stores.postgres import PostgresStore
        except ModuleNotFoundError as exc:
            if exc.name != "asyncpg":
                raise
            raise StoreError("PostgreSQL needs asyncpg: pip install 'derecho-workflows[postgres]'") from exc
        return PostgresStore(url)
    raise StoreError(
        f"no store has the address {scheme + colon!r}: use memory:, sqlite:///file.db or postgresql://host/database"
    )


def _path(url: str, rest: str) -> str:
    """The file of a `sqlite:` address: three slashes and a relative path, four and an absolute one, or none."""
    if not rest.startswith("//"):
        path = rest
    elif rest.startswith("///"):
        path = rest[3:]
    else:
        raise StoreError(f"{url!r} names a host: a file is sqlite:///relative.db or sqlite:////absolute.db")
    if "?" in path:
        raise StoreError(f"{url!r} has options: a store takes none, pass SQLiteStore(path, …) instead of an address")
    if not path or path == ":memory:":
        raise StoreError(f"{url!r} names no file: use memory: for a store without one")
    return path
