"""The order in which asyncio wakes fibers is the same in every process: neither addresses nor hash seeds decide it."""

import asyncio
import os
import random
import subprocess
import sys
from typing import Any

import pytest

from derecho import Context, DeterminismError, activity, workflow
from derecho.journal import events as ev
from derecho.workflow import WorkflowDefinition
from tests.house.repository import ROOT
from tests.runtime.conftest import DriveOf
from tests.runtime.programs import PROGRAMS, play, story

program = pytest.mark.parametrize("program", PROGRAMS, ids=[program.name for program in PROGRAMS])


@program
def test_the_heap_decides_nothing(program: WorkflowDefinition) -> None:
    kept: list[object] = []
    stories = set()
    for _ in range(12):
        kept.extend(bytearray(random.randrange(2_000)) for _ in range(500))
        random.shuffle(kept)
        del kept[: len(kept) // 2]  # holes of all sizes, so that the next objects lie in another order
        stories.add(story(program))
    assert len(stories) == 1


@program
@pytest.mark.parametrize("seed", range(4))
def test_another_worker_can_take_over_at_any_task(program: WorkflowDefinition, seed: int) -> None:
    run = play(program, seed)
    try:
        run.check()
    finally:
        run.close()


def test_other_processes_with_other_hash_seeds_do_the_same() -> None:
    here = [story(program) for program in PROGRAMS]
    for seed in ("0", "4242"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.runtime.programs"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines() == here


RESULTS = {
    "gathering": "g0 g1 g2 g3 g4 g5 g6",
    "waiting": "w6 w2 ! ! ! ! ! ? ? w0 w1 w3 w4 w5 ! ! w7 w8",
    "completing": "c3 c0 c1 c2 c6 c4 c5 c7",
    "compensating": "t4 t0 t1 t2 t3 t5 t6 t7 t8 failed",
    "synchronising": "s0 s1 s2 s3 s4 s5",
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_order_is_the_one_that_recorded_histories_have(name: str) -> None:
    run = play(next(program for program in PROGRAMS if program.name == name))
    assert " ".join(run.result) == RESULTS[name]
    run.close()


@activity
async def work(name: str) -> None: ...


def test_gatherings_that_asyncio_wait_hands_out_in_sets_have_an_order(drive: DriveOf) -> None:
    @workflow
    async def stops_the_rest(ctx: Context) -> None:
        groups = [asyncio.gather(work.execute(ctx, f"{n}a"), work.execute(ctx, f"{n}b")) for n in range(8)]
        _, pending = await asyncio.wait(groups, return_when=asyncio.FIRST_COMPLETED)
        for group in pending:
            group.cancel()

    kept: list[object] = []
    for _ in range(6):
        run = drive(stops_the_rest)
        run.begin()
        run.task(run.completed("work"), ev.ActivityCompleted(4, run.converter.encode(None, "it"), run.at))
        kept.extend(bytearray(random.randrange(2_000)) for _ in range(500))
        random.shuffle(kept)
        del kept[: len(kept) // 2]
        run.check()


def test_a_gathering_outside_of_workflows_hashes_as_ever() -> None:
    async def gather() -> bool:
        gathering = asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        await gathering
        return hash(gathering) == object.__hash__(gathering)

    assert asyncio.run(gather())


def test_as_completed_is_refused_what_it_would_take_in_the_order_of_addresses(drive: DriveOf) -> None:
    class Job:
        def __init__(self, ctx: Context) -> None:
            self.ctx = ctx

        def __await__(self) -> Any:
            return work.execute(self.ctx, "job").__await__()

    @workflow
    async def awaits_jobs(ctx: Context) -> None:
        for job in asyncio.as_completed([Job(ctx), Job(ctx)]):
            await job

    with pytest.raises(DeterminismError, match=r"as_completed at runtime/test_order_is_fixed.py:\d+ was given a Job"):
        drive(awaits_jobs).begin()
