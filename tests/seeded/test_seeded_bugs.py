"""The suite itself is tested: each of these bugs, sown into a copy of the tree, must make a test fail.

A few quick ones each time; `DERECHO_BUGS=all` sows all of them. `python -m tests.seeded` prints the table.
"""

import os

import pytest

from tests.house.repository import PACKAGE
from tests.seeded.bug import Bug
from tests.seeded.bugs import BUGS, QUICK
from tests.seeded.farm import LIMIT, Farm, line

THOROUGH = os.environ.get("DERECHO_BUGS") == "all"
CHOSEN = [bug for bug in BUGS if THOROUGH or bug.name in QUICK]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    return Farm(tmp_path_factory.mktemp("farm") / "tree")


def test_each_bug_has_a_name_a_guarantee_and_tests() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 70
    assert [bug.name for bug in BUGS if not (bug.edits and bug.tests and bug.breaks.startswith("G"))] == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_still_applies(bug: Bug) -> None:
    assert bug.would_change(PACKAGE)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bug", CHOSEN, ids=lambda bug: bug.name)
def test_each_bug_is_noticed(bug: Bug, farm: Farm) -> None:
    found = farm.test(bug)
    print(line(bug, found))
    assert found.is_red, f"{line(bug, found)}\n{found.output}"


@pytest.mark.timeout(1_200)
def test_without_a_bug_the_same_tests_pass(farm: Farm) -> None:
    found = farm.run((test for bug in CHOSEN for test in bug.tests), limit=4 * LIMIT)
    assert found.is_green, found.output
