"""Whole engines in virtual time, behind a network that fails and with clocks that jump: nothing acknowledged is lost,
nothing is recorded twice, and everything comes to its end when the faults are over.

`DERECHO_SEEDS` sets how many seeds are run. A seed that fails prints how to see it again.
"""

import gc
import hashlib
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.faults import ALL, MARKS
from tests.simulation.report import failure_of, report
from tests.simulation.simulation import FAULTS, STEPS, Simulation

SEEDS = int(os.environ.get("DERECHO_SEEDS", "60"))
FIRST = int(os.environ.get("DERECHO_FIRST_SEED", "1"))
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.timeout(0),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of engines that were killed
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def nothing_is_left_to_the_collector() -> Iterator[None]:
    """What killed engines leave is collected here, not in the middle of another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def test_promises_are_kept_and_all_ends_well_whatever_fails() -> None:
    fired: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    calls = steps = 0
    for seed in range(FIRST, FIRST + SEEDS):
        simulation, error = failure_of(seed)
        if error is not None:
            raise AssertionError(report(seed)) from error
        assert sum(simulation.faults.fired.values()) >= FAULTS
        assert simulation.server.calls >= STEPS
        fired += simulation.faults.fired
        marks += simulation.server.marks
        calls += simulation.server.calls
        steps += simulation.loop.steps
    print(f"{SEEDS} seeds, {calls} calls, {steps} steps, {sum(fired.values())} faults: {dict(fired)}")
    print(f"marks: {dict(marks)}")
    if SEEDS >= 60:
        settings = {"slow network", "lost hints", "no cache", "small cache", "skewed clocks", "reordered"}
        assert set(ALL) - settings <= fired.keys(), "some fault never struck"
        assert marks.keys() >= MARKS, f"never reached: {sorted(MARKS - marks.keys())}"


def digest(simulation: Simulation) -> str:
    return hashlib.sha256("\n".join(simulation.server.lines).encode()).hexdigest()


def test_a_seed_gives_the_same_trace_each_time_and_in_each_process() -> None:
    program = "from tests.simulation import test_simulation as t; "
    program += "print(t.digest(t.Simulation(5).run()))"
    first, second = digest(Simulation(5).run()), digest(Simulation(5).run())
    assert first == second
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        said = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.strip() == first
