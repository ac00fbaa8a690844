"""Whatever happens in whatever order, the PostgreSQL store answers and looks as the memory store does.

`DERECHO_FUZZ` is the number of random programs; without it a fixed set of them is run.
"""

import os
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

import pytest

from derecho.journal.store import Store
from derecho.stores.memory import MemoryStore
from derecho.stores.postgres import PostgresStore
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import everything
from tests.properties.random_changes import NAMES, QUEUES, TYPES, WORKERS, RandomChanges

T = TypeVar("T")
SEEDS = int(os.environ.get("DERECHO_FUZZ", "40"))
STEPS = 40


class Both:
    """Two stores that get the same calls at the same instants, and must answer the same."""

    def __init__(self, url: str) -> None:
        self.clock = VirtualClock()
        self.memory = MemoryStore(clock=self.clock)
        self.postgres = PostgresStore(url, clock=self.clock, worker_affinity=False)
        self.changes = RandomChanges()

    async def both(self, call: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        memory, postgres = await call(self.memory), await call(self.postgres)
        assert memory == postgres
        return memory

    async def look(self) -> None:
        seen = await self.both(everything)
        self.changes.runs = {run.run_id: run for run in seen["runs"]}
        self.changes.activities = {}
        for run in seen["runs"]:
            self.changes.activities |= {(row.run_id, row.activity): row for row in seen[run.run_id][2].activities}

    async def step(self, dice: Random) -> None:
        worker, tokens = dice.choice(WORKERS), self.changes.tokens(dice.randint(1, 4))
        match dice.choice(["commit"] * 6 + ["runs", "activities", "little", "time"]):
            case "commit":
                batch = [self.changes.transition(dice, self.memory.now()) for _ in range(dice.randint(1, 6))]
                await self.both(lambda store: store.commit(batch))
            case "runs":
                types, suspects = dice.sample(TYPES, dice.randint(1, 2)), dice.randint(0, 2)
                await self.both(lambda store: store.claim_runs(worker, tokens, types, suspects))
            case "activities":
                names, queues = dice.sample(NAMES, 2), dice.sample(QUEUES, dice.randint(1, 2))
                await self.both(lambda store: store.claim_activities(worker, tokens, names, queues))
            case "little":
                limit = dice.randint(1, 3)
                await self.both(lambda store: store.due_timers(limit))
                await self.both(lambda store: store.overdue(limit))
            case _:
                self.clock.advance(dice.choice([1, 5, 20, 100]))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_both_answer_and_look_the_same(empty_schema_url: str, seed: int) -> None:
    dice = Random(seed)
    stores = Both(empty_schema_url)
    try:
        first = stores.changes.first(stores.memory.now())
        await stores.both(lambda store: store.commit(first))
        for number in range(STEPS):
            if number % 2 == 0:
                await stores.look()
            await stores.step(dice)
        await stores.look()
    finally:
        await stores.postgres.close()
