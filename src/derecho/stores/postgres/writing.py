"""Committing transitions: load, decide, write what differs if the world has not moved on meanwhile, else again.

Loading and writing are one statement each, and each is a transaction of its own: no lock is held while Python thinks,
and a pooler may stand between. What is remembered need not be loaded, and is as good as what was loaded long ago: the
same comparison refuses it. Only where that is not enough (a worker leaves, others keep winning, a user's own
transaction) the rows are locked first.
"""

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import asyncpg

from derecho.clock import FOREVER
from derecho.errors import StoreUnavailable
from derecho.journal.changes import Conflict, Receipt, RegisterWorker, RenewWorker, Result, Transition
from derecho.journal.model import Topic
from derecho.stores.memory.changes import apply
from derecho.stores.postgres.address import Address
from derecho.stores.postgres.batch import Loaded, Wanted
from derecho.stores.postgres.connections import Link
from derecho.stores.postgres.remembered import Remembered
from derecho.stores.transitions import unfit

_HOPEFUL, _TRIES = 3, 100
"""How often a batch is tried without locks, and at all."""

_BARRIER = """
SELECT pg_logical_emit_message(true, 'derecho', 'barrier') WHERE current_setting('synchronous_standby_names') <> ''
"""
"""A transaction that changes nothing, and that a standby must have seen with all before it, if there is one."""

_AGAIN = (asyncpg.UniqueViolationError, asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


class Settled(NamedTuple):
    """What became of a batch. `now`: its instant, or a later one, by the database's clock.

    `soonest`: the first timer and the first timeout that it set, so that who waits for a later one can be told.
    """

    results: list[Result]
    touched: set[Topic]
    now: int
    soonest: Mapping[str, int] = MappingProxyType({})


class _Undo(Exception):
    """Takes a transition back that was applied change by change."""


class Writing:
    """How to write in one schema."""

    def __init__(self, address: Address, horizon: dict[str, int]) -> None:
        self._sql = address.statements("commit")
        self._forms = _forms(self._sql["write"])
        self._optimistic = address.prepared  # without prepared statements each statement needs a transaction anyway
        self._horizon = horizon
        self._epochs: dict[str, int] = {}  # in which each worker of this process has registered
        self.remembered = Remembered()

    async def settle(self, link: Link, transitions: Sequence[Transition], now: int | None, estimate: int) -> Settled:
        """Commit a batch on a connection, or apply it inside the transaction that is open there.

        `now`: the instant to decide by; None for the database's own, which is `estimate` or little later."""
        verdicts = [unfit(transition) for transition in transitions]
        kinds = {type(change) for transition in transitions for change in transition}
        if RegisterWorker in kinds or RenewWorker in kinds:
            verdicts = [
                self._outlived(link, each) or verdict for each, verdict in zip(transitions, verdicts, strict=True)
            ]
        fit = [transition for transition, verdict in zip(transitions, verdicts, strict=True) if verdict is None]
        wanted = Wanted(fit)
        found = self.remembered.take(link, wanted, estimate)  # also what a transaction changes that may yet be undone
        always = bool(wanted.leaving or wanted.tangled or not self._optimistic or link.connection.is_in_transaction())
        for attempt in range(_TRIES):
            try:
                if always or attempt >= _HOPEFUL:
                    async with link.connection.transaction():
                        settled = await self._locked(link, fit, wanted, now)
                        link.deciding = True
                else:
                    settled = await self._once(link, fit, wanted, now, found if attempt == 0 else None)
            except _AGAIN:
                settled = None
            if settled is not None:
                results = iter(settled.results)
                return settled._replace(results=[verdict or next(results) for verdict in verdicts])
            link.deciding = False
            await asyncio.sleep(random.uniform(0, 0.001) * attempt)  # noqa: S311  # so that rivals part
        raise StoreUnavailable("others change the same rows all the time: the batch found no gap in 100 tries")

    def _outlived(self, link: Link, transition: Transition) -> Conflict | None:
        """A lease is over when the database has gone on from another history, whatever its row says."""
        for change in transition:
            if isinstance(change, RegisterWorker):
                self._epochs[change.row.worker] = link.epoch
            elif isinstance(change, RenewWorker) and self._epochs.get(change.worker, link.epoch) != link.epoch:
                return Conflict("not_found", "the database has lost what it had acknowledged")
        return None

    async def _locked(
        self, link: Link, transitions: Sequence[Transition], wanted: Wanted, now: int | None
    ) -> Settled | None:
        if wanted.leaving:
            await link.connection.execute(self._sql["lock_workers"], list(wanted.leaving))
        if not wanted.tangled:
            await link.connection.execute(self._sql["lock_runs"], list(wanted.runs))
            return await self._once(link, transitions, wanted, now)
        results: list[Result] = []
        touched: set[Topic] = set()
        for transition in transitions:
            result, topics, now = await self._by_change(link, transition, now)
            results.append(result)
            touched |= topics
        return Settled(results, touched, now or 0)

    async def _by_change(self, link: Link, transition: Transition, now: int | None) -> tuple[Result, set[Topic], int]:
        """Apply a transition change by change; each sees what the one before it wrote."""
        receipts: list[Receipt] = []
        touched: set[Topic] = set()
        result: Result = Receipt()
        try:
            async with link.connection.transaction():
                for change in transition:
                    settled = await self._once(link, [(change,)], Wanted([(change,)]), now)
                    if settled is None:
                        raise asyncpg.SerializationError("the world moved on")
                    (result,), topics, now, soonest = settled
                    touched |= topics | ({"timers"} if min(soonest.values()) < FOREVER else set())
                    if isinstance(result, Conflict) or result.repeated:
                        raise _Undo
                    receipts.append(result)
        except _Undo:
            return result, set(), now or 0
        return Receipt(tuple(chain.from_iterable(receipt.delivered for receipt in receipts))), touched, now or 0

    async def _once(
        self, link: Link, transitions: Sequence[Transition], wanted: Wanted, now: int | None, known: Any = None
    ) -> Settled | None:
        """None when something has changed between the look and the write; then nothing was written.

        What is `known` is good for going on only: before anything is refused, it is looked at.
        """
        connection, guess = link.connection, known is not None
        found = known or dict(await connection.fetchrow(self._sql["load"], now, *wanted.parameters()) or {})
        tables = Loaded(wanted, found, self._horizon)
        results = [apply(tables, transition) for transition in transitions]
        changes, at = tables.difference(), tables.now
        done = all(isinstance(result, Receipt) and not result.repeated for result in results)
        # A run that is not created is refused, too, if only its parent is told so.
        if guess and not (done and changes and wanted.chains.keys() <= tables.runs.keys()):
            return None
        if changes is not None:
            link.deciding = True
            count, write = next(form for form in self._forms if not any(changes[form[0] - 1 :]))
            reached = at if guess and now is None else None
            revision, later = await connection.fetchrow(write, reached, *changes[: count - 1]) or (None, at)
            if revision is None:
                return None
            if not connection.is_in_transaction():
                self.remembered.keep(link, tables.written(revision, self._epochs))
            at = later if guess else at
        return Settled(results, tables.touched, at, tables.soonest)


def _forms(write: str) -> list[tuple[int, str]]:
    """The number of parameters of each form of a statement, and its text; the shortest comes first."""
    end = write[write.rindex("\nSELECT ") :]
    texts = [write[: write.index(f", {part} AS (")] + end for part in ("marked", "dropped")] + [write]
    return [(len(set(re.findall(r"\$\d+", text))), text) for text in texts]


async def wait_for_standby(link: Link) -> None:
    """Return when all that this server has shown us is where it keeps it; raises when that cannot be known."""
    link.unreplicated = False
    await link.connection.execute(_BARRIER)
    if link.unreplicated:
        raise StoreUnavailable("the standby does not answer", outcome="unknown")
