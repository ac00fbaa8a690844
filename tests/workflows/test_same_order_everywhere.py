"""The order in which fibers run is the same in every process, whatever its hash seed, its heap and its collector."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def order(seed: str, noise: int) -> str:
    """What a fresh process prints; `noise` objects are strewn over its heap first."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/order.py"), str(noise)],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return result.stdout


@pytest.fixture(scope="module")
def first() -> str:
    return order("0", 0)


@pytest.mark.parametrize(("seed", "noise"), [("1", 0), ("7", 1), ("random", 2), ("random", 3)])
def test_another_process_gives_the_same_history_and_the_same_result(first: str, seed: str, noise: int) -> None:
    assert len(first.splitlines()) > 30
    assert order(seed, noise) == first
