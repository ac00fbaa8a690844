"""`python -m benchmarks.write_path`: what writing a workflow task costs SQLite, and what other schemas would cost.

Each transition is what a task of a busy run writes: it advances, an activity is finished, another scheduled. Batches
of 200 transitions take random ones of 2,000 open runs. It is the store's own code, without its threads. The rounds of
all variants are interleaved; shown are their medians. docs/decisions/0002 has figures of one machine.
"""

import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from derecho.clock import FOREVER
from derecho.journal.changes import (
    Advance,
    CreateRun,
    FinishActivity,
    Receipt,
    RegisterWorker,
    ScheduleActivity,
    Transition,
)
from derecho.journal.model import ActivityRow, Head, RunRow, WorkerRow
from derecho.journal.wire import HistoryRow, chain
from derecho.stores.hints import Hints
from derecho.stores.sql import migrations
from derecho.stores.sqlite import runs, tasks
from derecho.stores.sqlite.connection import statements_of
from derecho.stores.sqlite.transaction import Writing
from derecho.stores.transitions import functions_in

RUNS, BATCH, BATCHES, ROUNDS = 2_000, 200, 50, 5
WORKER, CLAIM, NOW = "w" * 32, "c" * 32, 1_767_225_600_000_000
INPUT = '{"type":"activity_scheduled","name":"charge","input":[{"json":4711}],"source":"orders.py:33"}'
EVENTS = (
    '[{"type":"activity_completed","activity":5,"result":{"json":1},"at":1767225600000000,"worker":"' + WORKER + '"},'
    '{"type":"workflow_task_completed","at":1767225600000000,"worker":"' + WORKER + '"},' + INPUT + "]"
)


class Variant(NamedTuple):
    """`schema` changes the tables; `pragmas` are set before them; `savepoints` has one around each transition."""

    schema: Callable[[str], str] = lambda sql: sql
    pragmas: tuple[str, ...] = ()
    savepoints: bool = False


def without_rowid(*tables: str) -> Variant:
    def change(sql: str) -> str:
        first, *parts = sql.split("CREATE TABLE ")
        for index, part in enumerate(parts):
            if part.split()[0] in tables:
                keyed = part.replace("run_id TEXT NOT NULL UNIQUE", "run_id TEXT NOT NULL PRIMARY KEY")
                parts[index] = keyed.replace(") STRICT;", ") STRICT, WITHOUT ROWID;")
        return "CREATE TABLE ".join([first, *parts])

    return Variant(change)


def without_index(name: str) -> Variant:
    return Variant(lambda sql: sql.replace(f"CREATE INDEX {name} ", f"-- CREATE INDEX {name} "))


VARIANTS = {
    "as it is": Variant(),
    "synchronous = normal": Variant(pragmas=("synchronous = normal",)),
    "history WITHOUT ROWID": without_rowid("history"),
    "runs WITHOUT ROWID": without_rowid("runs"),
    "activities WITHOUT ROWID": without_rowid("activities"),
    "all three WITHOUT ROWID": without_rowid("history", "runs", "activities"),
    "no index on the holder of an activity": without_index("held_activities"),
    "pages of 8 KiB": Variant(pragmas=("page_size = 8192", "wal_autocheckpoint = 1000")),
    "cache of 2 MiB": Variant(pragmas=("cache_size = -2048",)),
    "checkpoint every 1,000 pages": Variant(pragmas=("wal_autocheckpoint = 1000",)),
    "a savepoint around each transition": Variant(savepoints=True),
}


class Load:
    """A database with open runs in the hands of one worker, and the next workflow task of any of them."""

    def __init__(self, path: Path, variant: Variant) -> None:
        self.dice = random.Random(1)
        self.variant = variant
        self.connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        settings = ("synchronous = full", "cache_size = -32768", "wal_autocheckpoint = 2000", *variant.pragmas)
        for pragma in (*variant.pragmas, "journal_mode = wal", *settings):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        for statement in statements_of(variant.schema(migrations("sqlite")[0].sql)):
            self.connection.execute(statement)
        self.writing = Writing(lambda stored: max(NOW, stored), Hints().horizon, functions_in(runs, tasks))
        # As UUIDv7: what is newer comes later, the rest is random.
        ids = [UUID(int=((NOW // 1_000 + n) << 80) | self.dice.getrandbits(62)) for n in range(RUNS)]
        self.heads = {str(run_id): Head() for run_id in ids}
        rows = [
            RunRow(name, name, "order", "default", "running", 1, name, NOW, claim=CLAIM, worker=WORKER)
            for name in self.heads
        ]
        self.writing.commit(self.connection, [(RegisterWorker(WorkerRow(WORKER, "", FOREVER, [])),)])
        self.writing.commit(self.connection, [(CreateRun(row, ()),) for row in rows])

    def transition(self, run_id: str) -> Transition:
        seen = self.heads[run_id]
        digest = chain(seen.digest, seen.tasks + 1, NOW, EVENTS)
        row = HistoryRow(seen.tasks + 1, seen.events + 1, NOW, EVENTS, digest)
        after = self.heads[run_id] = Head(row.task, seen.events + 3, digest)
        names = (run_id, after.events, run_id, "order", "charge", "default")
        scheduled = ActivityRow(*names, INPUT, NOW, NOW, claim=CLAIM, worker=WORKER, started_at=NOW)
        return (
            Advance(run_id, seen, row, after.events, claim=CLAIM, keep_claim=True),
            *((FinishActivity(run_id, seen.events, CLAIM),) if seen.tasks else ()),
            ScheduleActivity(scheduled),
        )

    def commit(self) -> tuple[float, float]:
        """One batch, as the writer's thread commits it: seconds by the clock, and of CPU."""
        batch = [self.transition(run_id) for run_id in self.dice.sample(list(self.heads), BATCH)]
        wall, cpu = time.perf_counter(), time.process_time()
        if self.variant.savepoints:
            guarded = partial(self.writing._apply_all, batch, guarded=True)
            results, _ = self.writing.run(self.connection, guarded)
        else:
            results, _ = self.writing.commit(self.connection, batch)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if not all(isinstance(result, Receipt) for result in results):
            raise RuntimeError(f"a transition was refused: {results}")
        return wall, cpu


def measure(variant: Variant) -> tuple[float, float]:
    """Microseconds for each transition, by the clock and of CPU."""
    with tempfile.TemporaryDirectory() as folder:
        load = Load(Path(folder) / "bench.db", variant)
        with closing(load.connection):
            for _ in range(10):
                load.commit()
            spent = [load.commit() for _ in range(BATCHES)]
    wall, cpu = (sum(column) / BATCHES / BATCH * 1e6 for column in zip(*spent, strict=True))
    return wall, cpu


def main(names: list[str]) -> None:
    chosen = {name: VARIANTS[name] for name in names or VARIANTS}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    for _ in range(ROUNDS):
        for name, variant in chosen.items():
            found[name].append(measure(variant))
    print(f"SQLite {sqlite3.sqlite_version}, {ROUNDS} rounds of {BATCHES} batches of {BATCH} transitions")
    print(f"{'':38} transitions/s   us    CPU us (median, least)")
    for name, rounds in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        least = min(cpu for _, cpu in rounds)
        print(f"{name:38} {1e6 / wall:13,.0f} {wall:6.1f} {cpu:6.1f} {least:6.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
