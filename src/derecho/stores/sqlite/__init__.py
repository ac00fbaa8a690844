"""A store in one SQLite file: durable, and no server to run. Several processes may share the file.

`connection` opens it and says what is wrong with it, `thread` gives each connection a thread, `runs` and `tasks` apply
changes, `work` hands out work, `store` puts it together. The SQL is in `derecho/stores/sql/sqlite`.
"""

from derecho.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
