"""What stays in memory: work never waits for room, and making room costs no search."""

from types import SimpleNamespace
from typing import Any

import pytest

from derecho.engine.runs import Cache, LiveRun
from derecho.journal.model import RunRow
from derecho.runtime.handles import ActivityFuture

ACTIVITY = ActivityFuture.__new__(ActivityFuture)
CODE: Any = None


def row(number: int) -> RunRow:
    return RunRow(f"run-{number}", f"workflow-{number}", "sleep", "default", "running", 1, "", 0)


def live_run(number: int, *, pending: Any = (), busy: bool = False) -> LiveRun:
    run = LiveRun(row(number), CODE)
    execution: Any = SimpleNamespace(pending=dict(enumerate(pending)))
    run.execution = execution
    run.busy = busy
    return run


def cache_of(capacity: int, *runs: LiveRun) -> Cache:
    cache = Cache(capacity)
    for run in runs:
        cache.add(run)
    return cache


def make_room(cache: Cache, commits: int = 10) -> list[str]:
    """The runs that are evicted in so many commits, in order."""
    gone = []
    for _ in range(commits):
        for run in cache.surplus():
            cache.remove(run)
            gone.append(run.identity.run_id)
    return gone


def test_the_run_that_slept_longest_leaves_first() -> None:
    runs = [live_run(number) for number in range(4)]
    cache = cache_of(2, *runs)
    cache.touch(runs[0])
    assert make_room(cache) == ["run-1", "run-2"]


def test_a_busy_run_never_leaves() -> None:
    cache = cache_of(1, *(live_run(number, busy=number < 3) for number in range(5)))
    assert make_room(cache) == ["run-3", "run-4"]


def test_runs_that_wait_for_activities_stay_while_sleepers_leave() -> None:
    cache = cache_of(2, *(live_run(number, pending=[ACTIVITY] if number < 6 else []) for number in range(8)))
    assert make_room(cache) == ["run-6", "run-7"]


def test_too_many_runs_that_wait_for_activities_leave_too() -> None:
    cache = cache_of(1, *(live_run(number, pending=[ACTIVITY]) for number in range(14)))
    make_room(cache)
    assert len(cache) == 10


@pytest.mark.parametrize("count", [100, 10_000])
def test_making_room_looks_at_a_few_runs_however_many_there_are(count: int) -> None:
    looks = 0

    class Watched(LiveRun):
        __slots__ = ()

        @property
        def is_idle(self) -> bool:
            nonlocal looks
            looks += 1
            return False

    cache = cache_of(1, *(Watched(row(number), CODE) for number in range(count)))
    assert cache.surplus() == []
    assert looks == 4


def test_the_last_one_too_many_leaves_at_the_next_look_though_the_one_before_found_none() -> None:
    """Nobody may come back for it: a look is taken when something is committed."""
    cache = cache_of(0, live_run(0, busy=True), live_run(1, busy=True))
    assert make_room(cache, commits=1) == []
    for run in cache:
        run.busy = False
    assert make_room(cache, commits=1) == ["run-0", "run-1"]
