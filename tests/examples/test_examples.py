"""Every example runs on every store, and says what it promises."""

import importlib
import itertools
from pathlib import Path

import pytest

from tests.house.repository import ROOT

OUTPUT = {
    "approval": ["holiday: yes, says ann", "yacht: nobody answered", "bob against, cid for"],
    "cancellation": [
        "workflow 'tenant' was cancelled: the house is sold; moved in, paid the rent, moved out",
        "workflow 'hermit' was cancelled: please",
        "workflow 'hermit-2' was terminated: enough",
    ],
    "channels": ["[0, 1, 4, 9, 16]"],
    "children": [
        "a lamp brought to Bari",
        "Lecce got nothing: it broke",
        "the id was taken, and the courier who has it was left alone",
    ],
    "fan_out": ["60 pictures, never more than 4 at once: True"],
    "parallel": [
        "gather: ADA, BOB",
        "fibers: ADA, BOB, too late, in time: True",
        "group: ADA!, BOB!",
        "as_completed: ADA!, BOB!",
    ],
    "poller": ["abcde, then stopped", "3 runs, 2 of them continued as new"],
    "saga": ["booked flight, booked car, cancelled car-1, cancelled flight-1"],
    "side_effects": [
        "a recent time: True, a UUID of version 4",
        "drawn what was chosen: True",
        "a replay runs the step 0 times",
    ],
    "timers": ["slept at least 50 ms: True", "woke at the start: True"],
    "versioning": ["o-1: charged o-1", "o-2: checked o-2, charged o-2"],
}
"""The lines that each example prints, in order; others may stand between them."""

OF_THE_DEMO = {"demo", "order", "worker"}
LINES = 120


@pytest.mark.parametrize("name", sorted(OUTPUT))
async def test_an_example_says_what_it_promises(name: str, store_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    example = importlib.import_module(name)
    if name == "side_effects":
        vars(example)["tries"] = itertools.count(1)
    await example.main(store_url)
    printed = iter(capsys.readouterr().out.splitlines())
    missing = [line for line in OUTPUT[name] if line not in printed]  # `in` consumes: the order counts
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_one_idea_and_is_run(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES or path.stem in OF_THE_DEMO
    assert text.startswith('"""'), "an example says in its first line what it shows"
    tested = (ROOT / "tests").rglob("test_*.py")
    assert path.stem in {*OUTPUT, *OF_THE_DEMO} or any(path.stem in test.read_text() for test in tested)
