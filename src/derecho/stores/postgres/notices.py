"""Waking engines in other processes: NOTIFY, coalesced and never inside a commit of ours, which it would slow down.

All of it is a hint. While nobody listens (a pooler stands between, the connection is down) waits are short instead.
"""

import asyncio
import secrets
from collections.abc import Collection, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from derecho.journal.model import Topic
from derecho.stores.hints import TOPICS, Hints
from derecho.stores.postgres.address import Address
from derecho.stores.postgres.connections import Connections, Link
from derecho.stores.postgres.hosts import Connection, Troubles

COALESCE = 0.010
_AT_MOST = 1.0
"""Seconds for which a notification may take; it is a hint."""
_NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)"
_NOT_LONGER = 60.0
"""Seconds for which one connection listens: one that has died without a word is found by making another."""
_SOON, _LATE = 0.020, 0.250
"""Seconds between looks while nobody listens: just after something happened, and when it has long been quiet."""


class Notices:
    """Tells others what happened here, and the hints what happened there."""

    def __init__(self, address: Address, connections: Connections, hints: Hints) -> None:
        self._channel = f"derecho_{address.schema}"[:63]  # as much as a channel may have
        self._can_listen = address.prepared
        self._connections = connections
        self._hints = hints
        self._id = secrets.token_hex(8)
        self._pending: set[Topic] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._pause = dict.fromkeys(TOPICS, (0, _SOON))  # the mark that was waited for last, and for how long
        self.listening = False

    def tell(self, topics: Collection[Topic]) -> None:
        """Tell the others, a little later, together with what else happens until then."""
        home = self._connections.home
        if not topics or home is None:
            return
        if not self._connections.is_home:
            with suppress(RuntimeError):  # it was closed meanwhile
                home.call_soon_threadsafe(self.tell, topics)
            return
        self._pending.update(topics)
        if self._sender is None or self._sender.done() or self._sender.get_loop().is_closed():
            self._sender = self._spawn(self._send())

    async def tell_at_commit(self, connection: Connection, topics: Collection[Topic]) -> None:
        """Tell everybody, this process too, when the transaction of a user's is committed, which only they know."""
        if topics:
            await connection.fetchrow("SELECT pg_notify($1, $2)", self._channel, f"within {' '.join(topics)}")

    def patience(self, topic: Topic, seen: int, timeout: float) -> float:
        """How long to wait for a topic; looks get rarer while nothing happens."""
        if self._can_listen and self._listener is None and self._connections.is_home:
            self._listener = self._spawn(self._listen())
        mark, pause = self._pause[topic]
        self._pause[topic] = seen, _SOON if mark != seen else min(_LATE, pause * 1.5)
        return timeout if self.listening else min(timeout, pause)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self) -> None:
        while self._pending:
            with suppress(asyncio.CancelledError):  # the loop or the store ends: at once, then
                await asyncio.sleep(COALESCE)
            notify = partial(_notify, self._channel, f"{self._id} {' '.join(self._pending)}")
            self._pending = set()
            with suppress(Exception):  # the others poll
                await self._connections.run(notify, tries=1, patience=_AT_MOST)

    async def _listen(self) -> None:
        pause = _SOON
        while True:
            with suppress(*Troubles):  # we poll meanwhile
                connection = await self._connections.hosts.connect()
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                try:
                    await connection.add_listener(self._channel, self._heard)
                    self.listening, pause = True, _SOON
                    self._hints.bump()  # nobody knows what was said before
                    await asyncio.wait_for(lost.wait(), _NOT_LONGER)
                finally:
                    self.listening = False
                    self._hints.bump()  # who waits has waited too long already
                    connection.terminate()
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        sender, *topics = str(payload).split()
        if sender != self._id:
            self._hints.bump([topic for topic in TOPICS if topic in topics])

    async def close(self) -> None:
        self._listener = None
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=2 * _AT_MOST)
        await asyncio.sleep(0)  # in which the listening connection lets go of its socket


async def _notify(channel: str, said: str, link: Link) -> None:
    await link.connection.fetchrow(_NOTIFY, channel, said)
