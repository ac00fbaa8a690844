"""The user's rows and ours in one transaction, either way round.

`Session`: our transaction, held open in the writer's thread while code of the user's works in it. `write_within`: a
transaction of the user's, on a connection of theirs.
"""

import asyncio
import queue
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from derecho.errors import StoreError
from derecho.journal.changes import Conflict, Result, Transition
from derecho.stores.sqlite.thread import Order
from derecho.stores.sqlite.transaction import Transaction, Writing

T = TypeVar("T")

OUR_TABLES = frozenset({"runs", "history", "inbox", "message_keys", "activities", "timers", "workers", "meta"})
_WRITES = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE}
_ENDS = {sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA}


class _Refused(Exception):
    def __init__(self, conflict: Conflict) -> None:
        super().__init__(conflict)
        self.conflict = conflict


class _Abandoned(Exception):
    """The user's code raised: nothing is written."""


class Session:
    """A transaction whose statements come from an event loop, one at a time; `serve` is the writer's side of it."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[Order | Transition | None] = queue.SimpleQueue()
        self.served: asyncio.Future[Result] | None = None

    def serve(self, writing: Writing, connection: sqlite3.Connection) -> tuple[Result, set[Any]]:
        try:
            return writing.run(connection, partial(self._serve, writing))
        except _Refused as refused:
            return refused.conflict, set()
        except _Abandoned:
            return Conflict("not_found", "the transaction was given up"), set()

    def _serve(self, writing: Writing, transaction: Transaction) -> Result:
        while True:
            order = self._orders.get()
            if order is None:
                raise _Abandoned
            if not isinstance(order, Order):
                result = writing.apply(transaction, order)
                if isinstance(result, Conflict):
                    raise _Refused(result)
                if not all(number for _, number, _ in result.delivered):
                    raise _Refused(Conflict("closed", "its outcome is known already, or its run is closed"))
                return result
            try:
                order.tell(asyncio.Future.set_result, order.job(transaction.connection))
            except Exception as exc:
                order.tell(asyncio.Future.set_exception, exc)
            if not transaction.connection.in_transaction:
                raise StoreError("SQLite has ended the transaction by itself: the disk may be full")

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        order = Order.of(job)
        self._orders.put(order)
        if self.served is not None:
            await asyncio.wait({order.future, self.served}, return_when=asyncio.FIRST_COMPLETED)
            if not order.future.done():
                self.served.result()  # raises why there is no transaction
        result: T = await order.future
        return result

    def finish(self, transition: Transition) -> None:
        self._orders.put(transition)

    def give_up(self) -> None:
        self._orders.put(None)


class UserConnection:
    """What a transactional activity writes through. All other commits of this store wait meanwhile: be brief."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open = True

    async def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, if it has any."""
        return await self._run(lambda connection: connection.execute(sql, parameters).fetchall())

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any] | dict[str, Any]]) -> None:
        """Run one statement for each set of parameters."""
        rows = list(parameters)
        await self._run(lambda connection: connection.executemany(sql, rows) and None)

    async def _run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        if not self._open:
            raise StoreError("this transaction has ended: its connection is good only inside the function that got it")
        return await self._session.run(partial(_guarded, job))

    def close(self) -> None:
        self._open = False


def _guarded(job: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    """Run statements of the user's, which may neither end the transaction nor write our tables."""
    refused: list[str] = []

    def authorize(action: int, first: str | None, *_: Any) -> int:
        if action in _ENDS:
            refused.append("begin or end a transaction, attach a file or change a setting")
        elif action in _WRITES and first in OUR_TABLES:
            refused.append(f"write Derecho's own table {first!r}")
        return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK

    connection.set_authorizer(authorize)
    try:
        return job(connection)
    except sqlite3.DatabaseError as exc:
        if refused:
            raise StoreError(f"a statement inside a transaction of Derecho's may not {refused[0]}") from exc
        raise
    finally:
        connection.set_authorizer(None)


def write_within(connection: object, path: str, writing: Writing, transition: Transition) -> Result:
    """Apply a transition on a connection of the user's, in their open transaction or in one that they will commit."""
    own = _unwrap(connection)
    _check_file(own, path)
    if not own.in_transaction:
        if own.isolation_level is None:
            raise StoreError(
                "client.within needs an open transaction: this connection is in autocommit mode, BEGIN first"
            )
        own.execute("BEGIN IMMEDIATE")
    row_factory, text_factory = own.row_factory, own.text_factory
    own.row_factory, own.text_factory = None, str
    try:
        return writing.apply(writing.begin(own), transition)
    finally:
        own.row_factory, own.text_factory = row_factory, text_factory


def _unwrap(connection: Any) -> sqlite3.Connection:
    """The sqlite3 connection itself, or the one behind a connection or session of SQLAlchemy's."""
    found = connection
    for name in ("sync_session", "sync_connection"):
        found = getattr(found, name, found)
    if not isinstance(found, sqlite3.Connection) and callable(getattr(found, "connection", None)):
        found = found.connection()
    found = getattr(found, "connection", found)
    found = getattr(found, "driver_connection", found)
    if not isinstance(found, sqlite3.Connection):
        raise StoreError(
            f"client.within cannot write through a {type(connection).__module__}.{type(connection).__qualname__}: with "
            "an SQLite store it takes an sqlite3.Connection, or a connection of SQLAlchemy's on one"
        )
    return found


def _check_file(connection: sqlite3.Connection, path: str) -> None:
    files = [row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main"]
    if not files[0] or not Path(path).exists() or not Path(path).samefile(files[0]):
        raise StoreError(f"client.within got a connection to {files[0] or 'a database in memory'}, not to {path}")
