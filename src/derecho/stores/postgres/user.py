"""The user's rows and ours in one transaction: ours, in which code of theirs works, or theirs, in which we write."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, cast

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from derecho.errors import StoreError
from derecho.journal.changes import Conflict, Result, Transition
from derecho.stores.postgres.connections import Link, hear
from derecho.stores.postgres.hosts import Connection, Troubles
from derecho.stores.postgres.writing import Settled

_ENDS = re.compile(  # behind comments, too
    r"(?:\s|;|--[^\n]*\n|/\*.*?\*/)*"
    r"(?:abort|begin|commit|end|prepare|release|reset|rollback|savepoint|set|start)\b",
    re.IGNORECASE | re.DOTALL,
)
_WRITES = r'\b(?:insert\s+into|update|delete\s+from|truncate|table|merge\s+into)\s+(?:table\s+|only\s+)?"?%s"?\s*\.'

_PATIENT = "SET LOCAL idle_in_transaction_session_timeout = 60000"  # the user's code may think between two statements


class _Undone(Exception):
    def __init__(self, conflict: Conflict) -> None:
        super().__init__(conflict)
        self.conflict = conflict


class UserConnection:
    """What a transactional activity writes through; parameters are `$1`, `$2` … in the statement."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self._connection = connection
        self._writes = re.compile(_WRITES % schema, re.IGNORECASE)
        self.open = True

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, if it has any."""
        return [tuple(row) for row in await self._allowed(sql).fetch(sql, *parameters)]

    async def executemany(self, sql: str, parameters: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each set of parameters."""
        await self._allowed(sql).executemany(sql, list(parameters))

    def _allowed(self, sql: str) -> Connection:
        if not self.open:
            raise StoreError("this transaction has ended: its connection is good only inside the function that got it")
        if self._writes.search(sql):
            raise StoreError("a statement inside a transaction of Derecho's may not write Derecho's own tables")
        if _ENDS.match(sql):
            raise StoreError("a statement inside a transaction of Derecho's may not begin or end one, or set something")
        return self._connection


class Session:
    """A transaction between two tasks: `serve` holds it open, `work` uses it."""

    def __init__(self, settle: Callable[[Link, Sequence[Transition]], Awaitable[Settled]], schema: str) -> None:
        loop = asyncio.get_running_loop()
        self._settle = settle
        self._schema = schema
        self._begun: asyncio.Future[UserConnection] = loop.create_future()
        self._decided: asyncio.Future[Transition | None] = loop.create_future()

    async def serve(self, link: Link) -> Settled:
        """Commit what `work` does, or nothing."""
        try:
            async with link.connection.transaction():
                await link.connection.execute(_PATIENT)
                self._begun.set_result(UserConnection(link.connection, self._schema))
                transition = await self._decided
                if transition is None:
                    raise _Undone(Conflict("not_found", "the transaction was given up"))
                settled = await self._settle(link, [transition])
                (result,) = settled.results
                if isinstance(result, Conflict):
                    raise _Undone(result)
                if not all(number for _, number, _ in result.delivered):
                    raise _Undone(Conflict("closed", "its outcome is known already, or its run is closed"))
                link.deciding = True
            return settled
        except _Undone as undone:
            results: list[Result] = [undone.conflict]
            return Settled(results, set(), 0)

    async def work(self, served: "asyncio.Future[Settled]", work: Callable[[Any], Awaitable[Transition]]) -> None:
        """Have the user's code work in the transaction; when it raises, nothing of it stays."""
        served.add_done_callback(hear)
        waiting: list[asyncio.Future[Any]] = [served, self._begun]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not self._begun.done():
                return  # there is no connection, and `served` says why
            user = self._begun.result()
            try:
                transition = await work(user)
            finally:
                user.open = False
        except BaseException as exc:
            self._decided.set_result(None)  # also for a transaction that is yet to begin
            if self._begun.done():
                await asyncio.wait({served})
                if isinstance(exc, Troubles):
                    await served  # raises if the connection was lost, whatever became of that in the user's hands
            raise
        self._decided.set_result(transition)


def check_within(connection: Any) -> Connection:
    """A connection of the user's that is in a transaction."""
    if not isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        raise StoreError(
            f"client.within cannot write through a {type(connection).__module__}.{type(connection).__qualname__}: with "
            "a PostgreSQL store it takes a connection of asyncpg's"
        )
    if not connection.is_in_transaction():
        raise StoreError("client.within needs an open transaction: use it inside `async with connection.transaction()`")
    return cast(Connection, connection)
