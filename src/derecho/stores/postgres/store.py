"""The PostgreSQL store: the `Store` protocol over a few connections."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

import asyncpg

from derecho.clock import FOREVER, SECOND, Clock
from derecho.errors import StoreError, StoreUnavailable
from derecho.journal import model
from derecho.journal.changes import Receipt, Result, Transition, is_fresh
from derecho.journal.deadlines import claimed
from derecho.journal.store import DueTimers, Overdue, Pending, Taken
from derecho.journal.wire import HistoryRow
from derecho.stores.hints import TOPICS, Hints
from derecho.stores.postgres import address as addresses
from derecho.stores.postgres.batch import ACTIVITY, RUN
from derecho.stores.postgres.connections import Connections, Link
from derecho.stores.postgres.hosts import Troubles
from derecho.stores.postgres.migrate import prepare
from derecho.stores.postgres.notices import Notices
from derecho.stores.postgres.user import Session, check_within
from derecho.stores.postgres.writing import Settled, Writing, wait_for_standby
from derecho.stores.transitions import can_be_stored

T = TypeVar("T")

PATIENCE_WITH_HOME = 2 * SECOND
"""How long a ready run is left to the live engine that holds it warm, before others help out."""


class PostgresStore:
    """Everything in one schema of a PostgreSQL database, for engines on any number of machines.

    Args:
        dsn: `postgresql://user@host/database`, several hosts for failover; besides the options that libpq knows,
            `schema=NAME`, `prepared=off` (behind a pooler in transaction mode) and `durable=off` (accept a server that
            may forget acknowledged work).
        schema: a schema of its own for Derecho; made when it is missing.
        worker_affinity: leave a run's tasks to the live engine that holds it warm.
        pool_size: connections for work, beside one that listens.
        clock: for tests; the database's clock decides otherwise.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "derecho",
        worker_affinity: bool = True,
        pool_size: int = 4,
        clock: Clock | None = None,
    ) -> None:
        self._address = address = addresses.parse(dsn, schema)
        self._patience = PATIENCE_WITH_HOME if worker_affinity else None
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0
        self._ahead = time.time_ns() // 1_000 - _ticks()  # of our ticks, by the database's clock once it was seen
        self._opened = self._closed = False
        self._hints = Hints()
        self._connections = Connections(address, pool_size)
        self._notices = Notices(address, self._connections, self._hints)
        self._writing = Writing(address, self._hints.horizon)
        self._work, self._reads = address.statements("work"), address.statements("reads")
        if clock is not None:
            clock.subscribe(self._hints.bump)

    @property
    def url(self) -> str:
        return self._address.shown

    def now(self) -> int:
        with self._lock:
            at = self._clock.now() if self._clock is not None else _ticks() + self._ahead
            if self._opened or self._clock is not None:  # before that it is a guess
                self._last = at = max(self._last, at)
            return at

    def _given_now(self) -> int | None:
        """The instant to decide by: None for the database's own."""
        return None if self._clock is None else self.now()

    def _told(self, now: int) -> int:
        """The database has told its time: between two looks we count on from there."""
        if self._clock is None:
            with self._lock:  # what is decided by the estimate is not decided before this
                self._ahead, self._last = now - _ticks(), max(self._last, now)
        return now

    async def open(self) -> None:
        """Connect, check the server, apply migrations; raises StoreError with the remedy."""
        self._closed = False
        if self._opened:
            return

        async def job(link: Link) -> None:
            await prepare(link.connection, self._address)
            self._told(await link.connection.fetchval(self._work["instant"], self._given_now()))

        self._connections.open()
        await self._connections.run(job)
        self._opened = True

    async def close(self) -> None:
        self._closed = True
        await self._notices.close()
        await self._connections.close()
        self._opened = False
        self._hints.bump()

    async def _run(self, job: Callable[[Link], Awaitable[T]], tries: int = 2) -> T:
        if self._closed:
            raise StoreError(f"the store at {self.url} is closed; open() it again to use it")
        if not self._opened:
            await self.open()
        return await self._connections.run(job, tries)

    async def _ask(self, job: Callable[[Link], Awaitable[T]], nothing: T) -> T:
        """What is sought by a text that cannot be stored is not there."""

        async def fit(link: Link) -> T:
            try:
                return await job(link)
            except (asyncpg.DataError, asyncpg.CharacterNotInRepertoireError, UnicodeEncodeError):
                link.connection.terminate()  # its statement is prepared, but not ended: it would stay in a transaction
                return nothing

        return await self._run(fit)

    async def _read(self, sql: str, *parameters: object) -> list[asyncpg.Record]:
        return await self._ask(lambda link: link.connection.fetch(sql, *parameters), [])

    def _touched(self, topics: set[model.Topic]) -> None:
        self._hints.bump(topics)
        self._notices.tell(topics)

    # --- writes -------------------------------------------------------------------------------------------------------

    async def _settle(self, link: Link, transitions: Sequence[Transition]) -> Settled:
        settled = await self._writing.settle(link, transitions, self._given_now(), self.now())
        self._told(settled.now)
        return settled

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        batch = tuple(transitions)

        async def job(link: Link) -> Settled:
            settled = await self._settle(link, batch)
            old = [result for result in settled.results if not is_fresh(result)]
            in_doubt = self._connections.in_doubt
            if old or in_doubt or link.unreplicated:  # it says what another commit did, which a standby may not have
                self._connections.in_doubt = True
                await wait_for_standby(link)
                self._connections.in_doubt = False
            if any(in_doubt or isinstance(result, Receipt) for result in old):
                settled.touched.update(TOPICS)  # if an answer was lost nobody was told of what it touched
            return settled

        settled = await self._run(job)
        self._settled(settled)
        return settled.results

    def _settled(self, settled: Settled) -> None:
        """Tell of a commit. A look may have been answered since it was decided, without what it set."""
        if any(at < self._hints.horizon[what] for what, at in settled.soonest.items()):
            settled.touched.add("timers")
        self._touched(settled.touched)

    async def transact(self, work: Callable[[Any], Awaitable[Transition]]) -> Result:
        session = Session(self._settle, self._address.schema)
        served = asyncio.ensure_future(self._run(session.serve, tries=1))
        try:
            await session.work(served, work)
            settled = await asyncio.shield(served)
        except StoreUnavailable:
            self._touched({"runs"})  # its message may be there all the same
            raise
        self._settled(settled)
        return settled.results[0]

    async def commit_within(self, connection: Any, transition: Transition) -> Result:
        await self.open()
        try:
            link = Link(check_within(connection))
            settled = await self._settle(link, [transition])
            await self._notices.tell_at_commit(link.connection, settled.touched)
        except Troubles as exc:
            raise StoreError(f"client.within could not write through this connection: {exc}") from exc
        return settled.results[0]

    # --- claims and looks ---------------------------------------------------------------------------------------------

    async def claim_runs(
        self, worker: str, claims: Sequence[str], types: Collection[str], suspects: int = 1
    ) -> Taken[model.ClaimedRun]:
        now, wanted = self._given_now(), list(set(types))

        async def job(link: Link) -> tuple[list[asyncpg.Record], int | None]:
            execute, fetch = link.connection.execute, link.connection.fetch
            first_at, is_due = await self._first(link, "first_run", now, wanted)
            if not is_due:
                return [], first_at
            async with link.connection.transaction():
                if not await link.connection.fetchval(self._work["lock_worker"], worker):
                    return [], first_at
                most = min(len(claims), suspects)
                picked = await fetch(self._work["pick_runs"], now, worker, wanted, len(claims), most, self._patience)
                run_ids = [row[0] for row in picked]
                if run_ids:
                    await execute(self._work["claim_runs"], run_ids, list(claims[: len(run_ids)]), worker)
                link.deciding = bool(run_ids)
                rows = await fetch(self._work["claimed_runs"], run_ids) if run_ids else []
            self._writing.remembered.keep(link, {row["run_id"]: tuple(row)[: RUN + 3] for row in rows})
            return rows, first_at

        nothing: tuple[list[asyncpg.Record], int | None] = [], None
        rows, first_at = await self._ask(job, nothing)
        taken = [model.ClaimedRun(_run_row(row), [model.Message(*said) for said in row["messages"]]) for row in rows]
        return Taken(taken, first_at)

    async def _first(self, link: Link, statement: str, *parameters: object) -> tuple[int | None, bool]:
        """The instant of the first that could be claimed, and whether a claim is worth its transaction."""
        [(now, first_at)] = await link.connection.fetch(self._work[statement], *parameters)
        return first_at, first_at is not None and first_at <= self._told(now)

    async def claim_activities(
        self, worker: str, claims: Sequence[str], names: Collection[str], queues: Collection[str]
    ) -> Taken[model.ActivityRow]:
        now, kinds = self._given_now(), (list(set(names)), list(set(queues)))

        async def job(link: Link) -> Taken[model.ActivityRow]:
            first_at, is_due = await self._first(link, "first_activity", now, *kinds)
            if not is_due:
                return Taken([], first_at)
            async with link.connection.transaction():
                if not await link.connection.fetchval(self._work["lock_worker"], worker):
                    return Taken([], first_at)
                picked = await link.connection.fetch(self._work["pick_activities"], now, *kinds, len(claims))
                rows = [
                    claimed(model.ActivityRow(*row[1 : ACTIVITY + 1]), claim, worker, row[0])
                    for claim, row in zip(claims, picked, strict=False)
                ]
                if rows:
                    columns = zip(*((row.run_id, row.activity, row.claim, row.timeout_at) for row in rows), strict=True)
                    link.deciding = True
                    await link.connection.execute(
                        self._work["claim_activities"], *map(list, columns), worker, rows[0].started_at
                    )
                return Taken(rows, first_at)

        taken = await self._ask(job, Taken[model.ActivityRow]([], None))
        horizon = self._hints.horizon["timeouts"]
        if any(row.timeout_at is not None and row.timeout_at < horizon for row in taken.rows):
            self._touched({"timers"})
        return taken

    async def due_timers(self, limit: int) -> DueTimers:
        self._hints.horizon["timers"] = FOREVER  # what is set from now on may not be in the answer
        found = await self._read(self._work["first_timers"], self._given_now(), limit + 1)
        due = [model.TimerRow(*row[1:]) for row in found[:limit] if row["fire_at"] <= row[0]]
        next_at = found[len(due)]["fire_at"] if len(found) > len(due) else None
        self._hints.horizon["timers"] = FOREVER if next_at is None else next_at
        return DueTimers(due, next_at)

    async def overdue(self, limit: int) -> Overdue:
        self._hints.horizon["timeouts"] = FOREVER
        [(now, *found)] = await self._read(self._work["overdue"], self._given_now(), limit + 1)
        lost, timeouts = ([model.ActivityRow(*row[:ACTIVITY]) for row in rows] for rows in found[:2])
        workers = [model.WorkerRow(*row) for row in found[2]]
        overdue = Overdue.of(lost, timeouts, workers, self._told(now), limit)
        self._hints.horizon["timeouts"] = FOREVER if overdue.next_at is None else overdue.next_at
        return overdue

    # --- reads --------------------------------------------------------------------------------------------------------

    async def load(self, run_ids: Collection[str]) -> dict[str, list[HistoryRow]]:
        found: dict[str, list[HistoryRow]] = {run_id: [] for run_id in run_ids}
        for run_id, *row in await self._read(self._reads["load"], list(filter(can_be_stored, found))):
            found[run_id].append(HistoryRow(*row))
        return found

    async def _run_rows(self, statement: str, *parameters: object) -> list[model.RunRow]:
        return [_run_row(row) for row in await self._read(self._reads[statement], *parameters)]

    async def get_run(self, run_id: str) -> model.RunRow | None:
        return next(iter(await self._run_rows("get_run", run_id)), None)

    async def find_run(self, workflow_id: str) -> model.RunRow | None:
        return next(iter(await self._run_rows("find_run", workflow_id)), None)

    async def closed(self, run_ids: Collection[str]) -> list[model.RunRow]:
        return await self._run_rows("closed", list(run_ids))

    async def children(self, run_id: str) -> list[model.RunRow]:
        return await self._run_rows("children", run_id)

    async def pending(self, run_id: str) -> Pending:
        found = await self._read(self._reads["pending"], run_id)
        activities, timers, messages = found[0] if found else ((), (), ())
        return Pending(
            [model.ActivityRow(*row[:ACTIVITY]) for row in activities],
            [model.TimerRow(*row) for row in timers],
            [model.Message(*row) for row in messages],
        )

    async def attempts(self, places: Sequence[tuple[str, int]]) -> list[model.AttemptState]:
        run_ids, activities = [place[0] for place in places], [place[1] for place in places]
        return [model.AttemptState(*row) for row in await self._read(self._reads["attempts"], run_ids, activities)]

    async def list_runs(self, where: model.RunFilter) -> list[model.RunRow]:
        """A statement for each index; the rest of the filter narrows what the index finds."""
        page = (*(where.before or (FOREVER, "")), max(0, where.limit))
        match where:
            case model.RunFilter(workflow_id=str(workflow_id)):
                narrow = (workflow_id, where.status, where.workflow_type)
                return await self._run_rows("list_of_workflow", *narrow, *page)
            case model.RunFilter(status=str(status)):
                return await self._run_rows("list_by_status", status, where.workflow_type, *page)
            case model.RunFilter(workflow_type=str(workflow_type)):
                return await self._run_rows("list_by_type", workflow_type, *page)
            case _:
                return await self._run_rows("list_runs", *page)

    async def workers(self) -> list[model.WorkerRow]:
        return [model.WorkerRow(*row) for row in await self._read(self._reads["live_workers"], self._given_now())]

    # --- hints --------------------------------------------------------------------------------------------------------

    def seen(self, topic: model.Topic) -> int:
        return self._hints.seen(topic)

    def hint(self, topic: model.Topic) -> None:
        self._hints.bump((topic,))

    async def wait(self, topic: model.Topic, seen: int, timeout: float) -> None:
        await self._hints.wait(topic, seen, self._notices.patience(topic, seen, timeout))


def _ticks() -> int:
    """Microseconds of a clock that nobody sets."""
    return time.monotonic_ns() // 1_000


def _run_row(row: asyncpg.Record) -> model.RunRow:
    return model.RunRow(*row[:RUN])
