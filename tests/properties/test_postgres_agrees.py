"""Whatever happens in whatever order, the PostgreSQL store answers and looks as the memory store does.

A program is 50 verbs of clients, workers, the clock and the network, drawn from its seed: single changes (several make
a transition, several transitions a commit), claims, looks, time that passes, commits that are sent again, now or much
later, and a store that is closed and opened. `DERECHO_FUZZ` is the number of programs.
"""

import os
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import Any, TypeVar, get_args

import pytest

from derecho.journal.changes import Change, Conflict, Receipt, Transition
from derecho.journal.store import Store
from derecho.stores.memory import MemoryStore
from derecho.stores.postgres import PostgresStore
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import everything
from tests.properties.random_changes import NAMES, QUEUES, TYPES, WORKERS, RandomChanges
from tests.support.schemas import Janitor

T = TypeVar("T")
PROGRAMS = int(os.environ.get("DERECHO_FUZZ", "300"))
GROUPS, VERBS = 6, 50
VERBS_BESIDE = ("claim runs", "claim activities", "look", "time", "again", "reopen")
STEPS = ["commit"] * 8 + ["claim runs", "claim activities"] * 2 + ["look", "time", "time", "again", "reopen"]


class Both:
    """Two stores that get the same calls at the same instants, and must answer the same. `verbs` counts the calls."""

    def __init__(self, url: str, janitor: Janitor, schema: str) -> None:
        self.clock = VirtualClock()
        self.memory = MemoryStore(clock=self.clock)
        self.postgres = PostgresStore(url, clock=self.clock, worker_affinity=False)
        self.changes = RandomChanges()
        self.verbs: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        self.sent: list[list[Transition]] = []
        self._empty = partial(janitor.empty, schema)

    async def begin(self) -> None:
        """Empty worlds, then two workers and three runs."""
        self._empty()
        self.memory = MemoryStore(clock=self.clock)
        self.changes, self.sent = RandomChanges(), []
        first = self.changes.first(self.memory.now())
        await self.both(lambda store: store.commit(first))

    async def both(self, call: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        memory, postgres = await call(self.memory), await call(self.postgres)
        assert memory == postgres
        return memory

    async def look_around(self) -> None:
        """What there is, so that the next changes fit; the other store is compared in the end."""
        seen = await everything(self.memory)
        self.changes.runs = {run.run_id: run for run in seen["runs"]}
        self.changes.activities = {}
        for run in seen["runs"]:
            self.changes.activities |= {(row.run_id, row.activity): row for row in seen[run.run_id][2].activities}

    async def commit(self, batch: list[Transition]) -> None:
        results = await self.both(lambda store: store.commit(batch))
        for result in results:
            repeated = isinstance(result, Receipt) and result.repeated
            self.results["conflict" if isinstance(result, Conflict) else "repeated" if repeated else "applied"] += 1

    async def step(self, dice: Random) -> int:
        """Do one thing; gives the number of verbs that it was."""
        worker, tokens, kind = dice.choice(WORKERS), self.changes.tokens(dice.randint(1, 4)), dice.choice(STEPS)
        match kind:
            case "commit":
                batch = [self.changes.transition(dice, self.memory.now()) for _ in range(dice.randint(1, 4))]
                self.sent.append(batch)
                await self.commit(batch)
                self.verbs.update(type(change).__name__ for transition in batch for change in transition)
                return sum(map(len, batch))
            case "again":
                await self.commit(dice.choice(self.sent[-1:] + self.sent) if self.sent else [])
            case "claim runs":
                types, suspects = dice.sample(TYPES, dice.randint(1, 2)), dice.randint(0, 2)
                await self.both(lambda store: store.claim_runs(worker, tokens, types, suspects))
            case "claim activities":
                names, queues = dice.sample(NAMES, 2), dice.sample(QUEUES, dice.randint(1, 2))
                await self.both(lambda store: store.claim_activities(worker, tokens, names, queues))
            case "look":
                limit = dice.randint(1, 3)
                await self.both(lambda store: store.due_timers(limit))
                await self.both(lambda store: store.overdue(limit))
            case "reopen":
                await self.postgres.close()
                await self.postgres.open()
            case _:
                self.clock.advance(dice.choice([1, 5, 20, 100]))
        self.verbs[kind] += 1
        return 1


@pytest.mark.parametrize("group", range(GROUPS))
async def test_both_answer_and_look_the_same(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, group: int
) -> None:
    stores = Both(empty_schema_url, janitor, shared_schema)
    for seed in range(group, PROGRAMS, GROUPS):
        dice, done = Random(seed), 0
        await stores.begin()
        while done < VERBS:
            await stores.look_around()
            done += await stores.step(dice)
        await stores.both(everything)
    await stores.postgres.close()
    print(f"{stores.verbs.total()} verbs: {dict(stores.verbs)}; transitions {dict(stores.results)}")
    kinds = [change.__name__ for change in get_args(Change)]
    rare = {kind for kind in (*kinds, *VERBS_BESIDE) if stores.verbs[kind] < 0.01 * stores.verbs.total()}
    assert not rare, f"less than one in a hundred: {rare}"
    assert stores.results["applied"] >= 0.3 * stores.results.total(), stores.results
    assert stores.results["conflict"] >= 0.1 * stores.results.total(), stores.results
    assert stores.results["repeated"] >= 0.01 * stores.results.total(), stores.results
