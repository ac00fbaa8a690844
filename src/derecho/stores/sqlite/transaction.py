"""One write transaction: its instant, what it touches, and how it ends.

A batch first runs without savepoints, because conflicts are rare: one that shows before its transition has written
anything is simply noted. Only when a transition stops halfway is the batch rolled back and done again with a savepoint
around each transition, so that the neighbours of a refused one are not touched.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

from derecho.journal.changes import Change, Conflict, Receipt, Result, Transition
from derecho.journal.model import Topic
from derecho.stores.sql import load
from derecho.stores.transitions import Stop, unfit

T = TypeVar("T")

_WORK = load("sqlite/work")
_STORED_NOW, _STORE_NOW = _WORK["stored_now"], _WORK["store_now"]
_ALIVE = load("sqlite/tasks")["alive"]
_DONE = Receipt()


class Transaction:
    """What the functions that apply changes work with. `now` is the same for the whole batch."""

    __slots__ = ("_alive", "connection", "execute", "horizon", "now", "touched")

    def __init__(self, connection: sqlite3.Connection, now: int, horizon: Mapping[str, int]) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.now = now
        self.horizon = horizon  # see `Hints`
        self.touched: set[Topic] = set()
        self._alive: set[str] | None = None

    def one(self, sql: str, parameters: tuple[Any, ...]) -> Any:
        """The only row of a query, or None."""
        return self.execute(sql, parameters).fetchone()

    def is_alive(self, worker: str | None) -> bool:
        """Whether a worker is registered. Nobody would notice the death of one that is not."""
        if self._alive is None:
            self._alive = {row[0] for row in self.execute(_ALIVE)}
        return worker in self._alive

    def watch_deadline(self, at: int | None) -> None:
        """An instant at which the timeout worker must look."""
        if at is not None and at < self.horizon["timeouts"]:
            self.touched.add("timers")

    def workers_changed(self) -> None:
        self._alive = None


Apply: TypeAlias = Callable[[Transaction, Any], tuple[str, int, bool] | None]
"""A function that applies one kind of change; one that delivers says what `Receipt.delivered` says."""


class UnknownOutcome(Exception):
    """COMMIT itself failed: the transaction may or may not be in the file. `error` is SQLite's."""

    def __init__(self, error: sqlite3.Error) -> None:
        super().__init__(str(error))
        self.error = error


class _Redo(Exception):
    """A transition stopped after it had written something."""


class Writing:
    """How to write.

    Args:
        instant: the instant of a transaction, not before the stored one that it is handed.
        table: which function applies which change.
    """

    def __init__(
        self, instant: Callable[[int], int], horizon: Mapping[str, int], table: Mapping[type[Change], Apply]
    ) -> None:
        self._instant = instant
        self._horizon = horizon
        self._table = table

    def run(self, connection: sqlite3.Connection, body: Callable[[Transaction], T]) -> tuple[T, set[Topic]]:
        """Run `body` in a transaction. It is durable on return, and undone when anything is raised."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            stored = connection.execute(_STORED_NOW).fetchone()[0]
            transaction = Transaction(connection, self._instant(stored), self._horizon)
            result = body(transaction)
            if transaction.now > stored:
                connection.execute(_STORE_NOW, (transaction.now,))
        except BaseException:
            roll_back(connection)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as exc:
            roll_back(connection)
            raise UnknownOutcome(exc) from exc
        return result, transaction.touched

    def commit(
        self, connection: sqlite3.Connection, transitions: Sequence[Transition]
    ) -> tuple[list[Result], set[Topic]]:
        """Commit a batch; each transition takes effect whole or not at all."""
        try:
            return self.run(connection, partial(self._apply_all, transitions, guarded=False))
        except _Redo:
            return self.run(connection, partial(self._apply_all, transitions, guarded=True))

    def begin(self, connection: sqlite3.Connection) -> Transaction:
        """A transaction that somebody else has begun and will end."""
        return Transaction(connection, self._instant(connection.execute(_STORED_NOW).fetchone()[0]), self._horizon)

    def apply(self, transaction: Transaction, transition: Transition) -> Result:
        """Apply one transition whole or not at all, in a transaction that has other things in it."""
        return unfit(transition) or self._apply(transaction, transition, guarded=True)

    def _apply_all(self, transitions: Sequence[Transition], transaction: Transaction, *, guarded: bool) -> list[Result]:
        return [
            unfit(transition) or self._apply(transaction, transition, guarded=guarded) for transition in transitions
        ]

    def _apply(self, transaction: Transaction, transition: Transition, *, guarded: bool) -> Result:
        written = transaction.connection.total_changes
        if guarded:
            transaction.execute("SAVEPOINT transition")
        delivered: list[tuple[str, int, bool]] = []
        verdict: Result
        try:
            for change in transition:
                outcome = self._table[type(change)](transaction, change)
                if outcome is not None:
                    delivered.append(outcome)
        except Stop as stopped:
            verdict = stopped.result
        except OverflowError as exc:
            verdict = Conflict("unfit", str(exc))
        else:
            if guarded:
                transaction.execute("RELEASE transition")
            return Receipt(tuple(delivered)) if delivered else _DONE
        if guarded:
            transaction.execute("ROLLBACK TO transition")
            transaction.execute("RELEASE transition")
            transaction.workers_changed()
        elif transaction.connection.total_changes != written:
            raise _Redo
        return verdict


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo what is open; after some errors, a full disk among them, SQLite has done so itself."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):  # the thread then drops the connection, which undoes it as well
            connection.execute("ROLLBACK")
