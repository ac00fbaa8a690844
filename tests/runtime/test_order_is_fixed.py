"""The order in which asyncio wakes fibers is the same in every process: neither addresses nor hash seeds decide it."""

import os
import random
import subprocess
import sys

import pytest

from derecho.workflow import WorkflowDefinition
from tests.house.repository import ROOT
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
