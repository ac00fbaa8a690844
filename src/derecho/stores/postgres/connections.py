"""Connections to PostgreSQL: few, discarded at the first sign of trouble, never asked to cancel anything.

Work runs in a task of its own, so that a caller that goes away aborts no commit. What takes too long loses its
connection, without a cancel request: cancelling a COMMIT that waits for a standby would acknowledge what is not there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal, TypeVar

import asyncpg

from derecho.errors import StoreError, StoreUnavailable
from derecho.stores.postgres.address import Address
from derecho.stores.postgres.hosts import Connection, Hosts, Troubles, log

T = TypeVar("T")

PATIENCE = 35.0
"""Seconds for one piece of work; then its connection is thrown away, and the outcome may be unknown."""

_LATER = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58", "XX")
_IN_DOUBT = ("08", "57P", "58", "XX")
"""Beginnings of SQLSTATEs: of what may work later; of what leaves a commit in doubt."""
_DAMAGE = ("XX001", "XX002")
"""SQLSTATEs of a page or an index that cannot be read, which waiting does not mend."""


def hear(done: asyncio.Future[Any]) -> None:
    """An error that nobody may be left to be told."""
    if not done.cancelled():
        done.exception()


class Link:
    """A connection at work. `deciding`: from here on, a lost connection leaves the outcome unknown.

    `epoch`: of its server's history, see `hosts`. `born` and `taken`: when it was made, and last handed out.
    """

    def __init__(self, connection: Connection, epoch: int = 0) -> None:
        self.connection = connection
        self.epoch = epoch
        self.born = self.taken = time.monotonic_ns()
        self.deciding = False
        self.unreplicated = False

    def heard(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        """The server's warning that a commit was acknowledged without its standby."""
        if message.sqlstate == "01000" and "synchronous replication" in str(message):
            log.error("a commit was not waited for by its standby, it will be checked: %s", message)
            self.unreplicated = True


class Connections:
    """Up to `size` connections for the loop that opened them; others connect for each call (a lease's renewal)."""

    def __init__(self, address: Address, size: int) -> None:
        self._address = address
        self.hosts = Hosts(address)
        self._size = size
        self.home: asyncio.AbstractEventLoop | None = None
        self._idle: list[Link] = []
        self._slots = asyncio.Semaphore(size)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.in_doubt = False  # an acknowledged outcome was lost: see `Writing.settle`

    @property
    def is_home(self) -> bool:
        """Whether the running loop is the one that keeps connections."""
        return self.home is asyncio.get_running_loop()

    def open(self) -> None:
        """Keep connections for the running loop, unless another one does."""
        if self.home is None or self.home.is_closed():
            self.home, self._idle, self._slots = asyncio.get_running_loop(), [], asyncio.Semaphore(self._size)

    async def run(self, work: Callable[[Link], Awaitable[T]], tries: int = 2, patience: float | None = None) -> T:
        """Do some work on a connection; raises StoreError. Cancelling the caller leaves the work alone.

        A connection that had died unnoticed costs nothing: as long as nothing was decided, another one is tried.
        """
        task = asyncio.get_running_loop().create_task(self._run(work, tries, patience))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(hear)
        return await asyncio.shield(task)

    async def _run(self, work: Callable[[Link], Awaitable[T]], tries: int, patience: float | None) -> T:
        link: Link | None = None
        try:
            link = await self.take()
            timer = asyncio.get_running_loop().call_later(patience or PATIENCE, link.connection.terminate)
            try:
                return await work(link)
            finally:
                timer.cancel()
        except Troubles as exc:
            lost = link is not None and link.connection.is_closed() and not link.deciding
            error = self.explain(exc, link)
            if not lost or tries < 2:
                raise error from exc
            while self.is_home and self._idle:  # they have died with it
                self._idle.pop().connection.terminate()
        except BaseException:
            self._discard(link)
            raise
        finally:
            if link is not None:
                await self.give(link)
        return await self._run(work, tries - 1, patience)

    async def take(self) -> Link:
        if self.home is not None:  # None: closed since
            self.open()
        if at_home := self.is_home:
            await self._slots.acquire()
        try:
            while at_home and self._idle:
                link = self._idle.pop()
                if link.epoch != self.hosts.epoch:
                    self._discard(link)
                if not link.connection.is_closed():
                    link.deciding, link.taken = False, time.monotonic_ns()
                    return link
            link = Link(await self.hosts.connect(), self.hosts.epoch)
            link.connection.add_log_listener(link.heard)
            return link
        except BaseException:
            if at_home:
                self._slots.release()
            raise

    async def give(self, link: Link) -> None:
        """Back to the others, or closed."""
        if not self.is_home:
            with suppress(*Troubles):
                await link.connection.close(timeout=1)
            return
        if not link.connection.is_closed():
            self._idle.append(link)
        self._slots.release()

    def _discard(self, link: Link | None) -> None:
        if link is not None:
            link.connection.terminate()

    async def close(self) -> None:
        """Wait for what is under way, then hang up."""
        if not self.is_home:
            return  # a loop that is gone took its connections with it
        # Those of other loops are none of ours: waiting for them from here, nobody would wake us.
        tasks = [task for task in list(self._tasks) if task.get_loop() is self.home]
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE)
        while self._idle:
            with suppress(*Troubles):
                await self._idle.pop().connection.close(timeout=1)
        self.home = None

    def explain(self, error: Exception, link: Link | None = None) -> StoreError:
        """The error to raise `from` this one; its connection is not used again."""
        self._discard(link)
        state = getattr(error, "sqlstate", None) or ""
        where = f"database {self._address.shown}"
        is_damage = state in _DAMAGE and link is not None and not link.deciding  # while it was only read
        refused = bool(state) and (is_damage or not state.startswith(_IN_DOUBT))
        outcome: Literal["not_applied", "unknown"] = "not_applied"
        if link is not None and link.deciding and not refused:
            outcome, self.in_doubt = "unknown", True
        if state == "26000" or "prepared statement" in str(error) or "startup parameter" in str(error):
            return StoreUnavailable(
                f"{where} has a pooler in transaction mode before it: add prepared=off to the address ({error})"
            )
        if refused and (is_damage or not state.startswith(_LATER)) and link is not None:
            return StoreError(f"{where} refused a statement ({state}): {error}")
        if isinstance(error, ValueError):
            return StoreError(f"{where}: a value cannot be sent: {error}")
        return StoreUnavailable(f"{where} does not answer ({state or type(error).__name__}): {error}", outcome=outcome)
