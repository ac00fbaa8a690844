"""The crash explorer: a fault at every commit changes no outcome, and one that does can be repeated."""

import itertools
from pathlib import Path

import pytest

from derecho import WorkflowFailed
from derecho.stores.sqlite import SQLiteStore
from derecho.testing import CrashFound, Environment, SteeredRun
from derecho.testing.crashes import POINT
from tests.testing.programs import CardDeclined, again, approved, charge, counting, journey, pay, slip, waiter, weigh

OUTCOME = ["A 100", "B0 100", "B1 100", "step!", "ann", "parcel:6"]


def stubbed(**options: object) -> Environment:
    env = Environment(**options)  # type: ignore[arg-type]
    env.stub(charge, lambda order, cents=100: f"{order.upper()} {cents}")
    env.stub(weigh, lambda parcel: len(parcel))
    return env


async def test_faults_at_every_commit_change_no_outcome() -> None:
    report = await stubbed().explore_crashes(journey.bind(2), signals=[(approved, "ann")], pairs=10)
    print(report)
    assert report.result == OUTCOME
    commits = ("die_before", "die_after", "twice", "pause_before", "pause_after", "cancel", "evict")
    assert all(report.faults[action] >= 10 for action in commits), report.faults
    assert report.faults["error_before"] >= 20
    assert report.faults["error_after"] >= 20
    assert report.faults["late"] >= 1
    assert report.crash_points >= 120, report
    assert report.attempts >= 4 * report.crash_points  # the whole run took place each time


async def test_a_run_is_steered_from_outside_in_every_trial() -> None:
    seen: list[str] = []

    async def drive(run: SteeredRun[str]) -> None:
        seen.append(run.id)
        await run.sleep(3600)
        await run.signal(approved, "ann")

    report = await stubbed().explore_crashes(waiter.bind(), drive=drive, faults=["crash"])
    assert report.result == "ann"
    assert report.crash_points >= 5
    assert len(seen) > report.crash_points


async def test_the_same_on_sqlite(tmp_path: Path) -> None:
    files = itertools.count()
    env = stubbed(store=lambda clock: SQLiteStore(tmp_path / f"{next(files)}.db", synchronous="normal", clock=clock))
    report = await env.explore_crashes(journey.bind(1), signals=[(approved, "ann")], faults=["crash", "error"], limit=1)
    assert report.crash_points >= 12, report
    assert next(files) > report.crash_points


async def test_an_outcome_that_a_crash_changes_is_found_and_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def count(parcel: str) -> int:
        calls.append(parcel)
        return len(calls)

    async def found() -> CrashFound:
        env = Environment()
        env.stub(weigh, lambda parcel: count(parcel))
        calls.clear()
        with pytest.raises(CrashFound) as error:
            await env.explore_crashes(counting.bind(), faults=["crash"])
        return error.value

    error = await found()
    [point] = error.points
    assert "workflow 'counting' does not end as it should when the process dies" in str(error)
    assert "without the fault  completed: 1" in str(error)
    assert f"{POINT}={point} DERECHO_CRASH_SEED=0 python -m pytest 'tests/testing/test_crash_explorer.py::" in str(
        error
    )
    assert "1 workflow_started" in error.__notes__[0]
    tried = len(calls)
    monkeypatch.setenv(POINT, str(point))
    again = await found()
    assert again.points == (point,)
    assert len(calls) < tried or tried <= 3  # this place alone


async def test_stubs_that_are_used_up_are_new_in_every_trial() -> None:
    env = Environment()
    env.stub_error(charge, ValueError("no"), times=1)
    env.stub_value(charge, "paid")
    report = await env.explore_crashes(pay.bind("1"), faults=["crash", "evict"])
    assert report.result == "paid"
    assert report.crash_points >= 10


async def test_a_workflow_that_fails_must_fail_the_same_way() -> None:
    env = Environment()
    env.stub_error(charge, CardDeclined("no money"))
    report = await env.explore_crashes(pay.bind("1"), faults=["crash", "evict"])
    assert report.crash_points >= 8
    with pytest.raises(WorkflowFailed, match="no money"):
        _ = report.result


async def test_what_never_ends_or_is_blocked_is_told_before_any_fault() -> None:
    with pytest.raises(AssertionError, match="'waiter' does not end without any fault"):
        await Environment().explore_crashes(waiter.bind())
    with pytest.raises(Exception, match="a slip of the code"):
        await Environment().explore_crashes(slip.bind())


async def test_a_chain_of_runs_ends_as_one() -> None:
    report = await stubbed().explore_crashes(again.bind(3), faults=["crash", "evict", "late"])
    assert report.result == 3
    assert report.crash_points >= 25, report


async def test_a_retry_that_was_committed_without_an_answer_comes_when_it_is_due() -> None:
    env = stubbed()
    env.stub_error(charge, OSError("down"), times=1)
    report = await env.explore_crashes(pay.bind("1"), faults=["crash", "error"])
    assert report.result == "1 100"
    assert report.crash_points >= 30, report


async def test_what_counts_as_the_same_result_is_the_tests_choice() -> None:
    seen: list[str] = []

    def count(parcel: str) -> int:
        seen.append(parcel)
        return len(seen)

    env = Environment()
    env.stub(weigh, lambda parcel: count(parcel))
    report = await env.explore_crashes(counting.bind(), faults=["crash"], same=lambda one, other: other > 0)
    assert report.crash_points >= 6
