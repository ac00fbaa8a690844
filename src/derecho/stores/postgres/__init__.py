"""A store in a PostgreSQL database: many engines on several machines are one system.

`address` reads the URL, `hosts` reaches a server, `connections` keeps connections and says what went wrong, `migrate`
brings the schema up to date, `batch` turns transitions into rows, `remembered` knows some of them without a look,
`writing` commits them, `notices` wakes the others, `store` puts it together.
The SQL is in `derecho/stores/sql/postgres`.
"""

from derecho.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
