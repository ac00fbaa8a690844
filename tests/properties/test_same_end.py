"""Random programs on whole engines in virtual time end the same: straight, evicted at each commit, crashed at any.

Beside that, each history is replayed from every prefix, and the code let live through the next workflow task. What came
to its end is counted. `DERECHO_FUZZ` sets how many programs are made.
"""

import asyncio
import os
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, seed, settings

from tests.properties.comparing import check_every_prefix, outcome
from tests.properties.machine import run_program
from tests.properties.programs import OPERATIONS, Node, count, programs
from tests.properties.simulation import Record, Simulation

PARTS = 2
PROGRAMS = int(os.environ.get("DERECHO_FUZZ", "200"))
SAMPLE = PROGRAMS // 4 if PROGRAMS < 1_000 else PROGRAMS
ENOUGH = 200
CRASHES = 2
SECONDS_OF_A_PROGRAM = 10


class Tally:
    """What one part of the test has really done."""

    def __init__(self) -> None:
        self.programs = self.evictions = self.crashes = self.prefixes = 0
        self.generated: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()

    def add(self, program: Node, record: Record) -> None:
        self.programs += 1
        self.generated += count(program)
        self.ended += Counter(op for _, _, op in record.ended)
        self.statuses += Counter(status for runs in record.statuses.values() for status in runs)


async def straight(program: Node, **how: Any) -> Record:
    async with asyncio.timeout(SECONDS_OF_A_PROGRAM):
        return await Simulation(program, **how).run()


def same(program: Node, one: Record, other: Record, how: str) -> None:
    assert other.statuses == one.statuses, f"{how}: the runs end otherwise"
    assert outcome(other.result) == outcome(one.result), f"{how}: the result differs"


async def check(program: Node, tally: Tally) -> None:
    one = await straight(program)
    tally.add(program, one)
    for histories in one.histories.values():
        for history in histories:
            tally.prefixes += check_every_prefix(run_program, history)
    evicted = await straight(program, evict=True)
    same(program, one, evicted, "evicted after each commit")
    tally.evictions += evicted.evictions
    draw = random.Random(len(str(program)))
    for _ in range(CRASHES):
        at, applied = draw.randint(1, one.commits), draw.random() < 0.5
        crashed = await straight(program, crash_at=at, applied_first=applied)
        if "step" not in count(program):  # a step under way holds other runs of the dead engine back, so time goes on
            same(program, one, crashed, f"crashed {'after' if applied else 'before'} commit {at}")
        tally.crashes += crashed.crashed


@pytest.mark.parametrize("part", range(PARTS))
def test_a_program_ends_the_same_however_its_engine_is_treated(part: int) -> None:
    tally = Tally()

    @seed(part)
    @settings(max_examples=max(1, SAMPLE // PARTS), report_multiple_bugs=False)
    @given(programs())
    def one(program: Node) -> None:
        asyncio.run(check(program, tally))

    one()
    print(vars(tally))  # for `make fuzz`
    assert tally.crashes >= tally.programs
    assert tally.evictions >= tally.programs
    if tally.programs >= ENOUGH:
        never = {op for op in OPERATIONS if op != "raise" and not tally.ended[op]}
        assert not never, f"these operations never came to an end: {never}"
        assert set(tally.statuses) >= {"completed", "failed", "cancelled", "continued_as_new", "terminated"}
