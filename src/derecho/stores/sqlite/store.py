"""The SQLite store: the `Store` protocol over two threads, one that writes and one that reads.

Everything that decides something (commits, claims, looks) runs in the writer's thread, in order. Reads for people and
for replay have a connection of their own: they may take long and never hold up a commit.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from derecho.clock import FOREVER, Clock, SystemClock
from derecho.errors import StoreError, StoreUnavailable
from derecho.journal.changes import Result, Transition
from derecho.journal.model import ActivityRow, AttemptState, ClaimedRun, RunFilter, RunRow, Topic, WorkerRow
from derecho.journal.store import DueTimers, Overdue, Pending, Taken
from derecho.journal.wire import HistoryRow
from derecho.stores.hints import Hints
from derecho.stores.sqlite import connection as files
from derecho.stores.sqlite import reads, runs, tasks, work
from derecho.stores.sqlite.errors import code_of, explain
from derecho.stores.sqlite.thread import ConnectionThread, Job
from derecho.stores.sqlite.transaction import Transaction, UnknownOutcome, Writing
from derecho.stores.sqlite.user import Session, UserConnection, write_within
from derecho.stores.sqlite.watch import Watch
from derecho.stores.transitions import functions_in

T = TypeVar("T")
Due = TypeVar("Due", DueTimers, Overdue)


class SQLiteStore:
    """Everything in one SQLite file, which several processes may share.

    Args:
        path: the file; it is created when missing, its directory is not.
        synchronous: "full" keeps every acknowledged commit through a power cut. "normal" is faster and keeps them
            through the death of the process, but a power cut may take the newest ones back: an activity whose
            outcome was acknowledged may then run again.
        clock: for tests.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: files.Synchronous = "full", clock: Clock | None = None
    ) -> None:
        name = os.fspath(path)
        if synchronous not in files.LEVELS:
            raise StoreError(f'synchronous must be "full" or "normal", not {synchronous!r}')
        if not name or name == ":memory:":
            raise StoreError(f'{name!r} is no file: use MemoryStore (or "memory:") for a store without one')
        self._path = os.path.abspath(name)
        self._synchronous: files.Synchronous = synchronous
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._last = 0
        self._known = False  # whether the file has been opened before, so that it must exist from then on
        self._closed = False
        self._is_ready = False  # what `open` promises has been done
        self._threads: tuple[ConnectionThread, ConnectionThread] | None = None  # the writer and the reader
        self._hints = Hints(self._nudge)
        self._watch: Watch | None = None
        self._clock.subscribe(self._hints.bump)
        self._writing = Writing(self._instant, self._hints.horizon, functions_in(runs, tasks))

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def now(self) -> int:
        return self._instant(0)

    def _instant(self, stored: int) -> int:
        """Now, and never before an instant that was told or stored."""
        with self._lock:
            self._last = max(self._last, stored, self._clock.now())
            return self._last

    async def open(self) -> None:
        """Open the file, check its settings, apply migrations; raises StoreError with the remedy."""
        with self._lock:
            if self._is_ready:
                return
            if self._threads is None:
                self._watch = watch = Watch(self._path, self._hints, partial(self._nudge, always=True))
                self._threads = (
                    ConnectionThread("derecho-sqlite-writer", partial(self._connect_writer, watch), watch.poll),
                    ConnectionThread("derecho-sqlite-reader", partial(files.open_reader, self._path)),
                )
            self._closed = False
            writer, _ = self._threads
        try:
            await self._run(writer, lambda connection: None)
        except StoreUnavailable as exc:
            if code_of(exc.__cause__) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                raise StoreError(str(exc)) from exc.__cause__
            raise
        with self._lock:
            self._is_ready = self._threads is not None and self._threads[0] is writer

    def _connect_writer(self, watch: Watch) -> sqlite3.Connection:
        connection = files.open_writer(self._path, self._synchronous, create=not self._known)
        self._known = True
        self._instant(files.stored_now(connection))
        watch.begin(connection)
        return connection

    async def close(self) -> None:
        with self._lock:
            self._closed = True
            self._is_ready = False
            threads, self._threads = self._threads or (), None
            watch, self._watch = self._watch, None
        for thread in reversed(threads):  # the writer last: who closes last checkpoints
            thread.stop()
            await asyncio.shield(asyncio.to_thread(thread.join))
        if watch is not None:
            watch.alarm.close()  # nobody arms it any more
        self._hints.bump()

    async def _run(self, thread: ConnectionThread, job: Job[T]) -> T:
        """Run a job and translate its errors."""
        try:
            return await thread.run(job)
        except UnknownOutcome as exc:
            raise explain(exc.error, self._path, "unknown", files.BUSY_TIMEOUT) from exc.error
        except sqlite3.Error as exc:
            raise explain(exc, self._path, "not_applied", files.BUSY_TIMEOUT) from exc

    async def _write(self, job: Job[T]) -> T:
        """Run a job in the writer's thread."""
        return await self._run((await self._opened())[0], job)

    async def _read(self, job: Job[T], nothing: T) -> T:
        """Run a job in the reader's thread. What is sought by a text that cannot be stored is not there."""
        try:
            return await self._run((await self._opened())[1], job)
        except UnicodeEncodeError:
            return nothing

    async def _opened(self) -> tuple[ConnectionThread, ConnectionThread]:
        if self._closed:
            raise StoreError(f"the store of {self._path} is closed; open() it again to use it")
        threads = self._threads
        if threads is None or not self._known:
            await self.open()
            threads = self._threads
        if threads is None:
            raise StoreError(f"the store of {self._path} was closed while it was opened")
        return threads

    # --- writes and looks ---------------------------------------------------------------------------------------------

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        batch = tuple(transitions)

        def job(connection: sqlite3.Connection) -> list[Result]:
            results, touched = self._writing.commit(connection, batch)
            self._hints.bump(touched)
            return results

        return await self._write(job)

    async def transact(self, work: Callable[[Any], Awaitable[Transition]]) -> Result:
        session = Session()
        user = UserConnection(session)

        def job(connection: sqlite3.Connection) -> Result:
            result, touched = session.serve(self._writing, connection)
            self._hints.bump(touched)
            return result

        session.served = served = asyncio.ensure_future(self._write(job))
        try:
            transition = await work(user)
        except BaseException:
            session.give_up()
            with suppress(StoreError):
                await asyncio.shield(served)
            raise
        finally:
            user.close()
        session.finish(transition)
        return await asyncio.shield(served)

    async def commit_within(self, connection: Any, transition: Transition) -> Result:
        await self.open()
        try:
            return write_within(connection, self._path, self._writing, transition)
        except sqlite3.Error as exc:
            raise explain(exc, self._path, "not_applied", files.BUSY_TIMEOUT) from exc

    async def claim_runs(
        self, worker: str, claims: Sequence[str], types: Collection[str], suspects: int = 1
    ) -> Taken[ClaimedRun]:
        tokens, wanted = tuple(claims), frozenset(types)

        def job(connection: sqlite3.Connection) -> Taken[ClaimedRun]:
            first_at = work.first_run(connection, wanted)
            if first_at is None or first_at > self.now():
                return Taken([], first_at)
            taken = self._transact(connection, lambda tx: work.claim_runs(tx, worker, tokens, wanted, suspects))
            return Taken(taken, first_at)

        return await self._write(job)

    async def claim_activities(
        self, worker: str, claims: Sequence[str], names: Collection[str], queues: Collection[str]
    ) -> Taken[ActivityRow]:
        tokens, kinds = tuple(claims), (frozenset(names), frozenset(queues))

        def job(connection: sqlite3.Connection) -> Taken[ActivityRow]:
            first_at = work.first_activity(connection, *kinds)
            if first_at is None or first_at > self.now():
                return Taken([], first_at)
            taken = self._transact(connection, lambda tx: work.claim_activities(tx, worker, tokens, *kinds))
            return Taken(taken, first_at)

        return await self._write(job)

    def _transact(self, connection: sqlite3.Connection, body: Callable[[Transaction], T]) -> T:
        result, touched = self._writing.run(connection, body)
        self._hints.bump(touched)
        return result

    async def due_timers(self, limit: int) -> DueTimers:
        return await self._look("timers", work.due_timers, limit)

    async def overdue(self, limit: int) -> Overdue:
        return await self._look("timeouts", work.overdue, limit)

    async def _look(self, what: str, look: Callable[[sqlite3.Connection, int, int], Due], limit: int) -> Due:
        def job(connection: sqlite3.Connection) -> Due:
            found = look(connection, self.now(), limit)
            self._hints.horizon[what] = FOREVER if found.next_at is None else found.next_at
            return found

        return await self._write(job)

    # --- reads --------------------------------------------------------------------------------------------------------

    async def load(self, run_ids: Collection[str]) -> dict[str, list[HistoryRow]]:
        wanted = list(run_ids)
        return await self._read(lambda connection: reads.load(connection, wanted), {})

    async def get_run(self, run_id: str) -> RunRow | None:
        return await self._read(lambda connection: reads.get_run(connection, run_id), None)

    async def find_run(self, workflow_id: str) -> RunRow | None:
        return await self._read(lambda connection: reads.find_run(connection, workflow_id), None)

    async def closed(self, run_ids: Collection[str]) -> list[RunRow]:
        wanted = list(run_ids)
        return await self._read(lambda connection: reads.closed(connection, wanted), [])

    async def children(self, run_id: str) -> list[RunRow]:
        return await self._read(lambda connection: reads.children(connection, run_id), [])

    async def pending(self, run_id: str) -> Pending:
        return await self._read(lambda connection: reads.pending(connection, run_id), Pending([], [], []))

    async def attempts(self, places: Sequence[tuple[str, int]]) -> list[AttemptState]:
        wanted = list(places)
        return await self._read(lambda connection: reads.attempts(connection, wanted), [])

    async def list_runs(self, where: RunFilter) -> list[RunRow]:
        return await self._read(lambda connection: reads.list_runs(connection, where), [])

    async def workers(self) -> list[WorkerRow]:
        return await self._read(lambda connection: reads.workers(connection, self.now()), [])

    # --- hints --------------------------------------------------------------------------------------------------------

    def seen(self, topic: Topic) -> int:
        return self._hints.seen(topic)

    def hint(self, topic: Topic) -> None:
        self._hints.bump((topic,))

    async def wait(self, topic: Topic, seen: int, timeout: float) -> None:
        await self._hints.wait(topic, seen, timeout)

    def _nudge(self, *, always: bool = False) -> None:
        threads = self._threads
        if threads is not None:
            threads[0].nudge(always=always)
