"""mypy refuses stubs that do not fit their activity, at the line that is wrong, and takes those that do."""

import re
import subprocess
import sys
from pathlib import Path

from tests.house.repository import ROOT

SNIPPET = """
from derecho.testing import Environment
from tests.testing.programs import charge, order_workflow, pay, refund, weigh, approved

async def slow(order: str, cents: int = 1) -> str: raise NotImplementedError
async def wrong_result(order: str, cents: int = 1) -> int: raise NotImplementedError
async def wrong_parameter(order: int, cents: int = 1) -> str: raise NotImplementedError

async def test(env: Environment) -> None:
    env.stub(charge, slow)
    env.stub(charge, lambda order, cents=0: "ch_1")
    env.stub(weigh, lambda parcel: len(parcel))
    env.stub_value(charge, "ch_1")
    env.stub_error(charge, OSError(), times=2)
    env.use_real(charge, weigh, order_workflow)
    env.assert_called_with(charge, "1", cents=5)
    run = env.start(pay.bind("1"))
    text: str = await run.result()
    await run.signal(approved, "ann")
    report = await env.explore_crashes(pay.bind("1"))
    text = report.result
    env.stub(charge, wrong_result)  # refused
    env.stub(charge, wrong_parameter)  # refused
    env.stub(weigh, lambda: 5)  # refused
    env.stub(weigh, lambda parcel: "heavy")  # refused
    env.stub_error(charge, "not an error")  # refused
    env.assert_called_with(charge, 1)  # refused
    env.assert_called_with(charge, "1", 5, 6)  # refused
    number: int = await run.result()  # refused
    await run.signal(approved, 5)  # refused
    number = report.result  # refused
    env.stub("charge", slow)  # refused
"""


def test_mypy_refuses_stubs_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(tmp_path / "snippet.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=110,
    )
    found = {int(number) for number in re.findall(r"snippet.py:(\d+): error", done.stdout)}
    wanted = {number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# refused")}
    assert found == wanted, done.stdout + done.stderr
    assert len(wanted) == 11
