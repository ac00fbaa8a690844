"""Batches: each transition whole or not at all, in order, and untouched by its neighbours.

Where the outcome is a matter of comparing, the memory store is the reference.
"""

import asyncio
from typing import Any, get_args

import pytest

from derecho.journal.changes import (
    Change,
    Conflict,
    CreateRun,
    Deliver,
    Receipt,
    RegisterWorker,
    RenewWorker,
    Result,
    RetireWorker,
    ScheduleActivity,
    Transition,
)
from derecho.journal.model import WorkerRow
from derecho.stores.memory import MemoryStore
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import MINUTE, World, activity_row, everything, message, run_row
from derecho.testing.conformance.scenarios import CHANGES_COVERED, REFUSALS, SCENARIOS, Refusal, Scenario, prepare

each = pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
each_refused = pytest.mark.parametrize("refused", [make for _, make in REFUSALS], ids=[name for name, _ in REFUSALS])
MARK: Change = Deliver(message("mark"), run_id="run-2")


async def reference(*commits: list[Transition]) -> tuple[list[list[Result]], dict[str, Any]]:
    """What the memory store answers to these commits, and how it looks afterwards."""
    world = World(MemoryStore(clock=(clock := VirtualClock())), clock)
    await prepare(world)
    results = [await world.store.commit(commit) for commit in commits]
    return results, await everything(world.store)


@pytest.mark.asyncio
class TestOneTransition:
    async def test_there_is_a_scenario_for_each_change(self) -> None:
        assert set(get_args(Change)) == CHANGES_COVERED

    @each
    async def test_it_takes_effect(self, world: World, scenario: Scenario) -> None:
        await prepare(world)
        before = await everything(world.store)
        await world.do(scenario.change())
        after = await everything(world.store)
        assert after != before
        assert (await reference([(scenario.change(),)]))[1] == after

    @each
    async def test_done_again_it_is_answered_as_the_reference_answers(self, world: World, scenario: Scenario) -> None:
        await prepare(world)
        commits: list[list[Transition]] = [[(scenario.change(),)], [(scenario.change(),)]]
        results = [await world.store.commit(commit) for commit in commits]
        assert (results, await everything(world.store)) == await reference(*commits)

    @each_refused
    async def test_refused_it_has_no_effect(self, world: World, refused: Refusal) -> None:
        await prepare(world)
        before = await everything(world.store)
        conflict = await world.refused(refused())
        assert await everything(world.store) == before
        assert (await reference([(refused(),)]))[0] == [[conflict]]

    @each_refused
    async def test_refused_it_takes_its_transition_with_it(self, world: World, refused: Refusal) -> None:
        await prepare(world)
        before = await everything(world.store)
        await world.refused(MARK, refused())
        await world.refused(refused(), MARK)
        assert await everything(world.store) == before

    @each
    async def test_it_is_undone_with_its_transition(self, world: World, scenario: Scenario) -> None:
        await prepare(world)
        before = await everything(world.store)
        await world.refused(scenario.change(), Deliver(message(), run_id="nothing"))
        assert await everything(world.store) == before
        await world.do(scenario.change())
        assert (await reference([(scenario.change(),)]))[1] == await everything(world.store)


@pytest.mark.asyncio
class TestBatches:
    @each_refused
    async def test_neighbours_of_a_refused_transition_take_effect(self, world: World, refused: Refusal) -> None:
        await prepare(world)
        batch: list[Transition] = [(MARK,), (MARK, refused()), (MARK,), (refused(), MARK), (MARK,)]
        results = await world.store.commit(batch)
        assert [type(result) for result in results] == [Receipt, Conflict, Receipt, Conflict, Receipt]
        assert await world.inbox("run-2") == [message("mark").data] * 3

    @each
    async def test_twice_in_one_batch_is_as_twice_in_two(self, world: World, scenario: Scenario) -> None:
        await prepare(world)
        results = await world.store.commit([(scenario.change(),), (scenario.change(),)])
        expected, state = await reference([(scenario.change(),)], [(scenario.change(),)])
        assert results == [result for commit in expected for result in commit]
        assert await everything(world.store) == state

    @each
    @pytest.mark.parametrize("other", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
    async def test_each_pair_in_each_order_in_one_batch(
        self, world: World, scenario: Scenario, other: Scenario
    ) -> None:
        await prepare(world)
        batch: list[Transition] = [(scenario.change(),), (other.change(),)]
        results = await world.store.commit(batch)
        expected, state = await reference(batch[:1], batch[1:])
        assert results == [result for commit in expected for result in commit]
        assert await everything(world.store) == state

    async def test_commits_at_the_same_time_are_one_after_another(self, world: World) -> None:
        await world.sleeping()
        commits = [
            world.store.commit([(Deliver(message(f"{number}-{part}"), run_id="run-1"),) for part in range(3)])
            for number in range(20)
        ]
        numbers = [
            [number for result in results if isinstance(result, Receipt) for _, number, _ in result.delivered]
            for results in await asyncio.gather(*commits)
        ]
        assert sorted(number for found in numbers for number in found) == list(range(2, 62))
        assert all(found == list(range(found[0], found[0] + 3)) for found in numbers), "a batch is not interleaved"

    async def test_a_caller_that_goes_away_leaves_the_commit_whole(self, world: World) -> None:
        await world.sleeping()
        batch: list[Transition] = [(Deliver(message(str(number)), run_id="run-1"),) for number in range(50)]
        commit = asyncio.create_task(world.store.commit(batch))
        await asyncio.sleep(0)
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
        await world.do(Deliver(message("after"), run_id="run-1"))
        assert len(await world.inbox()) in (1, 51), "all of the batch or nothing"

    async def test_a_worker_whose_registration_is_undone_holds_nothing(self, world: World) -> None:
        await world.register("worker-2")
        mine = {"claim": "mine", "worker": "worker-1"}
        registered = RegisterWorker(WorkerRow("worker-1", "test", world.now + MINUTE, []))
        undone = Deliver(message(), run_id="nothing")
        results = await world.store.commit(
            [
                (CreateRun(run_row(1, **mine), ()),),
                (registered, CreateRun(run_row(2, **mine), ()), ScheduleActivity(activity_row(5, "run-2")), undone),
                (CreateRun(run_row(3, claim="another's", worker="worker-2"), ()),),
                (CreateRun(run_row(4, **mine), ()), ScheduleActivity(activity_row(6, "run-4", **mine))),
                (registered,),
                (CreateRun(run_row(5, **mine), ()),),
                (RetireWorker("worker-1"), undone),
                (CreateRun(run_row(6, **mine), ()),),
            ]
        )
        assert [isinstance(result, Receipt) for result in results] == [True, False, *[True] * 4, False, True]
        assert await world.store.get_run("run-2") is None
        held = [(await world.run(f"run-{number}")).claim for number in (1, 3, 4, 5, 6)]
        assert held == [None, "another's", None, "mine", "mine"]
        assert [(item.row.activity, item.lost) for item in (await world.store.overdue(10)).activities] == [(6, True)]
        assert [row.worker for row in await world.store.workers()] == ["worker-1", "worker-2"]

    async def test_a_worker_whose_registration_is_undone_leaves_no_trace(self, world: World) -> None:
        row = WorkerRow("worker-1", "test", world.now + MINUTE, ["workflow:order"])
        await world.refused(RegisterWorker(row), Deliver(message(), run_id="nothing"))
        assert await world.store.workers() == []
        await world.start()
        assert await world.claim() == [], "who is not registered claims nothing"
        await world.refused(RenewWorker("worker-1", world.now + MINUTE))
        await world.register()
        assert len(await world.claim()) == 1

    async def test_a_large_batch_is_applied_in_order(self, world: World) -> None:
        await world.sleeping()
        batch: list[Transition] = [(Deliver(message(str(number)), run_id="run-1"),) for number in range(1_000)]
        results = await world.store.commit(batch)
        assert results == [Receipt((("run-1", number, False),)) for number in range(2, 1_002)]
        assert await world.inbox() == [message(str(number)).data for number in range(1_000)]
