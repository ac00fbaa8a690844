"""Whatever happens in whatever order, the SQLite store answers and looks as the memory store does.

`DERECHO_FUZZ` is the number of random programs; without it a fixed set of them is run. Hypothesis chooses the steps and
shortens a failing program; what a step does in detail is drawn from the seed that it gives to the step.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from derecho.journal.store import Store
from derecho.stores.memory import MemoryStore
from derecho.stores.sqlite import SQLiteStore
from derecho.stores.sqlite.connection import open_writer
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import everything
from tests.properties.random_changes import NAMES, QUEUES, TYPES, WORKERS, RandomChanges

T = TypeVar("T")
FUZZ = int(os.environ.get("DERECHO_FUZZ", "0"))
dice = st.integers(0, 2**32 - 1).map(Random)


@cache
def empty_database() -> Path:
    """A database with the schema and nothing in it; copying it saves a migration per program."""
    path = Path(tempfile.mkdtemp(prefix="derecho-")) / "derecho.db"
    open_writer(str(path), "normal", create=True).close()
    return path


class StoresAgree(RuleBasedStateMachine):
    """Both stores get the same calls at the same instants, and must answer the same."""

    @initialize(dice=dice)
    def begin(self, dice: Random) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="derecho-"))
        self.path = self.folder / "derecho.db"
        shutil.copy(empty_database(), self.path)
        self.clock = VirtualClock()
        self.memory = MemoryStore(clock=self.clock)
        self.sqlite = SQLiteStore(self.path, synchronous="normal", clock=self.clock)
        self.changes = RandomChanges()
        self.both(lambda store: store.commit(self.changes.first(self.memory.now())))

    def teardown(self) -> None:
        self.runner.run(self.sqlite.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def both(self, call: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        async def ask() -> tuple[T, T]:
            return await call(self.memory), await call(self.sqlite)

        memory, sqlite = self.runner.run(ask())
        assert memory == sqlite
        return memory

    @invariant()
    def both_look_the_same_and_are_sound(self) -> None:
        seen = self.both(everything)
        self.changes.runs = {run.run_id: run for run in seen["runs"]}
        self.changes.activities = {}
        for run in seen["runs"]:
            pending = seen[run.run_id][2]
            self.changes.activities |= {(row.run_id, row.activity): row for row in pending.activities}
            assert [one.number for one in pending.messages] == list(range(run.inbox_read + 1, run.inbox_last + 1))
            assert run.is_open or (pending.activities, pending.timers, pending.messages) == ([], [], [])
            assert not pending.messages or run.ready_at is not None, "a run with unread messages sleeps"

    @rule(dice=dice, size=st.integers(1, 6))
    def commit(self, dice: Random, size: int) -> None:
        batch = [self.changes.transition(dice, self.memory.now()) for _ in range(size)]
        self.both(lambda store: store.commit(batch))

    @rule(dice=dice)
    def claim_runs(self, dice: Random) -> None:
        tokens = self.changes.tokens(dice.randint(1, 4))
        worker, types, suspects = dice.choice(WORKERS), dice.sample(TYPES, dice.randint(1, 2)), dice.randint(0, 2)
        self.both(lambda store: store.claim_runs(worker, tokens, types, suspects))

    @rule(dice=dice)
    def claim_activities(self, dice: Random) -> None:
        tokens = self.changes.tokens(dice.randint(1, 4))
        worker, names, queues = dice.choice(WORKERS), dice.sample(NAMES, 2), dice.sample(QUEUES, dice.randint(1, 2))
        self.both(lambda store: store.claim_activities(worker, tokens, names, queues))

    @rule(limit=st.integers(1, 3))
    def look_at_little(self, limit: int) -> None:
        self.both(lambda store: store.due_timers(limit))
        self.both(lambda store: store.overdue(limit))

    @rule(micros=st.sampled_from([1, 5, 20, 100, -3]))
    def time_passes(self, micros: int) -> None:
        self.clock.advance(micros)
        assert self.memory.now() == self.sqlite.now()

    @rule()
    def reopen(self) -> None:
        self.both(lambda store: store.commit([()]))  # stores the instant, below which the clock then never goes
        self.runner.run(self.sqlite.close())
        self.sqlite = SQLiteStore(self.path, synchronous="normal", clock=self.clock)
        self.runner.run(self.sqlite.open())


TestStoresAgree = StoresAgree.TestCase
TestStoresAgree.settings = settings(max_examples=FUZZ or 60, stateful_step_count=50, derandomize=not FUZZ)
