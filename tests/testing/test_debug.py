"""Time travel: pdb in the frame of a workflow, at an event of its past."""

import os
import subprocess
import sys

import pytest

from derecho import debug
from tests.house.repository import ROOT
from tests.testing.debugged import pay, record


def talk(at: int, *commands: str) -> str:
    """What a debugger says to somebody who types these commands."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.testing.debugged", str(at)],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_stops_on_the_line_that_asked() -> None:
    said = talk(3, "p secret, order", "n", "n", "p charged", "import os", "p os.listdir('.') != []", "c")
    assert "event 3, activity_scheduled, of workflow task 1" in said
    assert "-> charged = await charge.execute(ctx, order)" in said
    assert "('tea', 'o1')" in said
    assert "-> final = charged + secret" in said
    assert "'ch_1'" in said
    assert "True" in said  # who debugs may look at files
    assert said.endswith("the end\n")


def test_it_stops_where_a_fact_wakes_the_code() -> None:
    said = talk(7, "n", "p charged, ctx.now().second", "q")
    assert "event 7, timer_fired, of workflow task 3" in said
    assert "-> await ctx.sleep(60)" in said
    assert "('ch_1', 0)" in said
    assert said.endswith("the end\n")


def test_at_the_end_it_stops_in_the_last_task() -> None:
    said = talk(9, "n", "n", "p final", "c")
    assert "event 9, workflow_completed, of workflow task 3" in said
    assert "'ch_1tea'" in said
    assert said.endswith("the end\n")


async def test_an_event_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="has events 1 to 9, no event 10"):
        debug(await record(), pay, at=10)
