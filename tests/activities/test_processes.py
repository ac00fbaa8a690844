"""Activities in child processes: killed one by one, replaced when they die, a crash of native code is one attempt."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import derecho
from derecho import Context, ProcessDied, RetryPolicy, Store
from tests.activities import crashers
from tests.activities.kit import calling, engine, failure_of
from tests.support.world import eventually

TWICE = RetryPolicy(initial_interval=0, max_attempts=2)
whatever_the_store = pytest.mark.parametrize("store", ["memory"], indirect=True)
"""What goes on between an engine and its process is the same for all stores, and processes are dear."""


@derecho.workflow
async def many_pids(ctx: Context, count: int) -> list[int]:
    return await asyncio.gather(*(crashers.process_id.execute(ctx) for _ in range(count)))


@whatever_the_store
async def test_the_next_activity_begins_when_a_process_is_free_and_not_at_the_next_look(store: Store) -> None:
    running = engine(store, many_pids, crashers.process_id, max_processes=1)
    running.poll_interval = 1e4
    async with running:
        pids = await (await running.client.start(many_pids.bind(5))).result(timeout=20)
    assert len(pids) == 5
    assert len(set(pids)) == 1


@whatever_the_store
async def test_a_process_gives_results_and_is_kept_for_the_next_attempt(store: Store) -> None:
    @derecho.workflow
    async def both(ctx: Context) -> list[int]:
        return [
            await crashers.add.execute(ctx, 2, 3),
            await crashers.process_id.execute(ctx),
            await crashers.process_id.execute(ctx),
        ]

    async with engine(store, both, crashers.add, crashers.process_id) as running:
        total, first, second = await running.client.run(both.bind())
        assert (total, first) == (5, second)
        assert first != os.getpid()
        assert crashers.is_alive(first)
    assert not crashers.is_alive(first), "the engine takes its processes along"


@whatever_the_store
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (crashers.segfault.bind(), "killed by SIGSEGV"),
        (crashers.leave.bind(3), "it exited with code 3"),
        (crashers.leave.bind(0), "it exited with code 0"),
    ],
    ids=["segfault", "exit 3", "exit 0"],
)
async def test_an_activity_that_kills_its_process_each_time_stops_by_its_policy(
    store: Store, call: derecho.Invocation[None], reason: str
) -> None:
    """Poison: the engine lives on, and the next attempt of anything gets a new process."""
    caller = calling(call, retry=TWICE)
    activities = [crashers.segfault, crashers.leave, crashers.add]
    async with engine(store, caller, *activities, max_processes=1) as running:
        error = await failure_of(await running.client.start(caller.bind()))
        assert isinstance(error, ProcessDied)
        assert str(error).endswith(f"died in attempt 2: {reason}")
        after = calling(crashers.add.bind(1, 1))
        running.register_workflow(_renamed(after, "after"))
        assert await running.client.run(_renamed(after, "after").bind()) == 2


def _renamed(workflow: derecho.Workflow[[], int], name: str) -> derecho.Workflow[[], int]:
    workflow.name = name
    return workflow


@whatever_the_store
async def test_a_process_that_dies_is_noticed_though_what_it_forked_lives_on(store: Store, tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    caller = calling(crashers.die_beside_a_helper.bind(str(helper)))
    try:
        async with engine(store, caller, crashers.die_beside_a_helper) as running:
            error = await failure_of(await running.client.start(caller.bind()))
        assert isinstance(error, ProcessDied)
        assert "killed by SIGKILL" in str(error)
        assert crashers.is_alive(crashers.pid_in(helper))
    finally:
        os.kill(crashers.pid_in(helper), signal.SIGKILL)


async def test_what_kills_one_process_leaves_the_others_alone(store: Store) -> None:
    @derecho.workflow
    async def side_by_side(ctx: Context) -> list[int | str]:
        poison: derecho.Future[Any] = ctx.execute(crashers.segfault.bind(), retry=TWICE)
        sums: list[derecho.Future[Any]] = [crashers.add.execute(ctx, n, n) for n in range(4)]
        found = await asyncio.gather(poison, *sums, return_exceptions=True)
        return [type(item).__name__ if isinstance(item, BaseException) else item for item in found]

    async with engine(store, side_by_side, crashers.segfault, crashers.add, max_processes=2) as running:
        assert await running.client.run(side_by_side.bind()) == ["ProcessDied", 0, 2, 4, 6]


async def test_progress_survives_the_death_of_the_process(store: Store) -> None:
    async with engine(store, caller := calling(crashers.resume.bind()), crashers.resume) as running:
        assert await running.client.run(caller.bind()) == [4, 4]


@whatever_the_store
async def test_the_error_of_a_process_is_the_authors_own_with_notes_and_traceback(store: Store) -> None:
    async with engine(store, caller := calling(crashers.decline.bind()), crashers.decline) as running:
        error = await failure_of(await running.client.start(caller.bind()))
    assert isinstance(error, crashers.Declined), "and retry_if, asked in the parent, said no"
    assert error.code == 51
    assert error.__notes__ == ["the card of Ann"]
    cause = error.__cause__
    assert isinstance(cause, derecho.ActivityFailed)
    assert (cause.attempts, "in decline" in cause.remote_traceback) == (1, True)


@whatever_the_store
async def test_sys_exit_in_a_process_fails_the_attempt(store: Store) -> None:
    caller = calling(crashers.give_up.bind(), retry=TWICE)
    async with engine(store, caller, crashers.give_up) as running:
        error = await failure_of(await running.client.start(caller.bind()))
    assert "SystemExit: no more" in str(error)
    assert isinstance(error, derecho.ActivityFailed)
    assert error.attempts == 2


@whatever_the_store
async def test_a_process_knows_its_attempt_and_says_what_it_has_not(store: Store) -> None:
    async with engine(store, caller := calling(crashers.look_around.bind()), crashers.look_around) as running:
        handle = await running.client.start(caller.bind())
        name, attempt, key, resource, client = await handle.result(timeout=20)
    assert (name, attempt) == ("look_around", "1")
    assert key.startswith(handle.run_id)
    assert "runs in a process of its own" in resource
    assert "runs in a process of its own" in client


@whatever_the_store
@pytest.mark.parametrize(("size", "good"), [(3 * 2**20, True), (5 * 2**20, False)], ids=["3 MiB", "5 MiB"])
async def test_the_limit_of_a_result_holds_in_a_process(store: Store, size: int, good: bool) -> None:
    caller = calling(crashers.large.bind(size))
    async with engine(store, caller, crashers.large) as running:
        handle = await running.client.start(caller.bind())
        if good:
            assert len(await handle.result(timeout=20)) == size
        else:
            error = await failure_of(handle)
            assert isinstance(error, derecho.PayloadError)
            assert "more than the limit of 4,194,304" in str(error)


def test_a_function_inside_a_function_is_refused_at_its_decoration() -> None:
    with pytest.raises(derecho.DefinitionError, match="top of its module"):

        @derecho.activity(run_in="process")
        def hidden() -> None: ...


def test_an_async_function_is_refused_at_its_decoration() -> None:
    with pytest.raises(derecho.DefinitionError, match="runs on the loop"):

        @derecho.activity(run_in="process")
        async def coroutine() -> None: ...


async def test_a_process_dies_with_an_engine_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = [sys.executable, "-m", "tests.activities.programs", "spin", str(tmp_path / "spin.db"), str(pid_file)]
    with subprocess.Popen(script) as program:  # noqa: ASYNC220 - it only starts
        pid = await eventually(lambda: crashers.pid_in(pid_file))
        program.send_signal(signal.SIGKILL)
    await eventually(lambda: not crashers.is_alive(pid))
