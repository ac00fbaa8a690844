"""Every change beside every other one, on two connections at once: the outcome is that of one after the other."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from derecho import PostgresStore
from derecho.stores.postgres import batch, writing
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.batches import reference
from derecho.testing.conformance.kit import World, everything
from derecho.testing.conformance.scenarios import SCENARIOS, prepare
from tests.support.schemas import TABLES, Janitor


async def test_two_changes_at_once_are_one_after_the_other(
    empty_schema_url: str, janitor: Janitor, shared_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()

    class Counted(batch.Loaded):
        def __init__(self, *args: Any) -> None:
            counts["looks"] += 1
            super().__init__(*args)

    monkeypatch.setattr(writing, "Loaded", Counted)
    clock = VirtualClock()
    stores = [PostgresStore(empty_schema_url, clock=clock, worker_affinity=False) for _ in range(2)]
    await prepare(World(stores[0], clock))
    begin = "; ".join(f"CREATE TEMP TABLE begin_{name} AS SELECT * FROM {shared_schema}.{name}" for name in TABLES)
    again = "; ".join(
        f"DELETE FROM {shared_schema}.{name}; INSERT INTO {shared_schema}.{name} SELECT * FROM begin_{name}"
        for name in TABLES
    )
    janitor.execute(begin)
    orders = {
        (one.name, other.name): await reference([(one.change(),)], [(other.change(),)])
        for one in SCENARIOS
        for other in SCENARIOS
    }
    for one in SCENARIOS:
        for other in SCENARIOS:
            janitor.execute(again)
            before = counts["looks"]
            results = list(
                await asyncio.gather(stores[0].commit([(one.change(),)]), stores[1].commit([(other.change(),)]))
            )
            seen = await everything(stores[0])
            in_order, (reverse, after) = orders[one.name, other.name], orders[other.name, one.name]
            in_reverse = (reverse[::-1], after)
            if one.name == other.name == "ForgetRun":
                assert seen == after, "both may say that they did it: nothing is left to lock"
            else:
                assert (results, seen) in (in_order, in_reverse), f"{one.name} + {other.name}"
            counts["pairs"] += 1
            counts["met"] += counts["looks"] > before + 2
            if in_order != in_reverse:
                counts["order matters"] += 1
                counts["in order" if (results, seen) == in_order else "in reverse"] += 1
    janitor.execute("; ".join(f"DROP TABLE begin_{name}" for name in TABLES))
    for store in stores:
        await store.close()
    print(dict(counts))
    assert counts["pairs"] == len(SCENARIOS) ** 2
    assert counts["met"] >= 0.1 * counts["pairs"], "hardly two of them came to the same row at once"
    assert counts["order matters"] >= 0.1 * counts["pairs"]
    assert min(counts["in order"], counts["in reverse"]) >= 0.1 * counts["order matters"], "one of them always won"
