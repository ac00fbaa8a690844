"""Claims on runs: each to one worker, the longest ready first, never to one whose death nobody would see."""

import asyncio

import pytest

from derecho.journal.changes import (
    BlockRun,
    BuryWorker,
    Conflict,
    CreateRun,
    Deliver,
    ReleaseRun,
    RenewWorker,
    RequestTerminate,
    RetireWorker,
)
from derecho.journal.model import CLAIMED, Message, kind_of
from derecho.testing.conformance.kit import MINUTE, OTHER_WORKER, WORKER, World, advance, everything, message, run_row


@pytest.mark.asyncio
class TestClaimRuns:
    async def test_a_claim_gives_the_run_its_token_and_its_messages(self, world: World) -> None:
        await world.register()
        row = await world.start(1, message("one"), message("two"))
        (taken,) = (await world.store.claim_runs(WORKER, ["token"], ["order"])).rows
        assert taken.run == await world.run()
        assert (taken.run.claim, taken.run.worker, taken.run.ready_at) == ("token", WORKER, CLAIMED)
        assert taken.run.crashes == row.crashes == 0
        assert taken.messages == [Message(1, message("one").data), Message(2, message("two").data)]

    async def test_a_run_is_claimed_once(self, world: World) -> None:
        await world.register(WORKER, OTHER_WORKER)
        await world.start()
        assert len(await world.claim()) == 1
        assert await world.claim() == []
        assert await world.claim(worker=OTHER_WORKER) == []

    async def test_claims_at_the_same_time_share_the_runs(self, world: World) -> None:
        await world.register(WORKER, OTHER_WORKER)
        for number in range(20):
            await world.start(number)
        claims = (world.claim(worker=worker, limit=4) for worker in (WORKER, OTHER_WORKER) * 4)
        taken = [one for found in await asyncio.gather(*claims) for one in found]
        assert sorted(one.run.run_id for one in taken) == sorted(f"run-{number}" for number in range(20))
        assert len({one.run.claim for one in taken}) == 20

    async def test_the_longest_ready_come_first_and_no_more_than_asked_for(self, world: World) -> None:
        await world.register()
        for number, kind in ((3, "order"), (1, "ship"), (2, "order"), (4, "ship")):
            await world.start(number, workflow_type=kind)
            world.clock.advance(1)
        taken = [await world.claim("order", "ship", limit=limit) for limit in (1, 2, 5)]
        assert [[one.run.run_id for one in found] for found in taken] == [["run-3"], ["run-1", "run-2"], ["run-4"]]

    async def test_a_claim_says_when_the_first_run_is_ready_though_it_takes_none(self, world: World) -> None:
        assert (await world.store.claim_runs(WORKER, ["token"], ["order"])).first_at is None
        for number, (kind, after) in enumerate([("order", 3), ("ship", 2), ("other", 1), ("order", 0)], 1):
            run = await world.claimed(number, workflow_type=kind)
            await world.do(BlockRun(run.run_id, run.head, run.claim, "it is not its turn", world.now + after * MINUTE))
        world.clock.advance(1)
        kinds = ["order", "ship"]
        found = await world.store.claim_runs(WORKER, ["token"], kinds)
        assert [one.run.run_id for one in found.rows] == ["run-4"]
        assert found.first_at == world.now - 1
        found = await world.store.claim_runs(WORKER, ["token"], kinds)
        assert (found.rows, found.first_at) == ([], world.now - 1 + 2 * MINUTE)
        await world.do(RequestTerminate("run-3", "no more"))
        assert (await world.store.claim_runs(WORKER, [], kinds)).first_at == 0

    async def test_of_runs_that_are_ready_at_the_same_instant_the_lower_id_comes_first(self, world: World) -> None:
        await world.register()
        for number in (2, 3, 1):
            await world.start(number)
        assert [one.run.run_id for one in await world.claim()] == ["run-1", "run-2", "run-3"]

    async def test_other_types_are_left(self, world: World) -> None:
        await world.register()
        await world.start(workflow_type="ship")
        assert await world.claim("order") == []
        assert (await world.store.claim_runs(WORKER, ["token"], [])).rows == []
        assert len(await world.claim("ship", "order")) == 1

    async def test_other_versions_are_left(self, world: World) -> None:
        await world.register()
        for number in (1, 2, 3):
            await world.start(number, version=number)
            world.clock.advance(1)
        assert [one.run.version for one in await world.claim(kind_of("order", 2))] == [2]
        assert await world.claim(kind_of("order", 2)) == []
        assert [one.run.version for one in await world.claim("order", kind_of("order", 3))] == [1, 3]

    async def test_no_tokens_no_runs(self, world: World) -> None:
        await world.register()
        await world.start()
        assert (await world.store.claim_runs(WORKER, [], ["order"])).rows == []

    async def test_sleeping_and_closed_runs_are_not_claimed(self, world: World) -> None:
        await world.register()
        await world.sleeping(1)
        await world.closed(2)
        assert await world.claim() == []

    async def test_a_worker_that_is_not_registered_gets_nothing(self, world: World) -> None:
        await world.start()
        assert await world.claim() == []
        await world.register()
        assert len(await world.claim()) == 1

    async def test_a_run_can_be_claimed_again_and_again(self, world: World) -> None:
        run = await world.claimed()
        for number in range(3, 6):
            await world.do(advance(seen=run.head, claim=run.claim, consume_to=number))
            await world.do(Deliver(message(), run_id="run-1"))
            (taken,) = await world.claim()
            run = taken.run
        assert run.tasks == 4


@pytest.mark.asyncio
class TestSuspects:
    async def crash(self, world: World, *numbers: int) -> None:
        """Let a worker die while it holds these runs."""
        for number in numbers:
            await world.start(number)
        await world.register(OTHER_WORKER, lease=1)
        assert len(await world.claim(worker=OTHER_WORKER)) == len(numbers)
        world.clock.advance(1)
        await world.do(BuryWorker(OTHER_WORKER))

    async def test_a_worker_that_dies_leaves_its_runs_ready_with_one_crash_more(self, world: World) -> None:
        await self.crash(world, 1)
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at, row.crashes) == (None, None, world.now, 1)

    async def test_few_runs_that_killed_a_worker_are_taken_at_once(self, world: World) -> None:
        await world.register()
        await self.crash(world, 1, 2, 3)
        await world.start(4)
        taken = (await world.store.claim_runs(WORKER, world.tokens(10), ["order"])).rows
        assert [one.run.run_id for one in taken] == ["run-1", "run-4"]
        taken = (await world.store.claim_runs(WORKER, world.tokens(10), ["order"], suspects=5)).rows
        assert [one.run.run_id for one in taken] == ["run-2", "run-3"]

    async def test_none_of_them_is_taken_when_none_is_wanted(self, world: World) -> None:
        await world.register()
        await self.crash(world, 1)
        assert (await world.store.claim_runs(WORKER, ["token"], ["order"], suspects=0)).rows == []

    async def test_healthy_runs_that_are_longer_ready_come_first(self, world: World) -> None:
        await world.register()
        await self.crash(world, 1)
        run = (await world.claim())[0].run
        await world.start(2)
        world.clock.advance(1)
        await world.do(ReleaseRun("run-1", run.claim or ""))
        assert [one.run.run_id for one in await world.claim(limit=1)] == ["run-2"]
        assert [one.run.run_id for one in await world.claim(limit=1)] == ["run-1"]

    async def test_giving_back_is_no_crash_and_forgives_none(self, world: World) -> None:
        await world.register()
        await self.crash(world, 1)
        (taken,) = await world.claim()
        await world.do(ReleaseRun("run-1", taken.run.claim or ""))
        assert (await world.run()).crashes == 1
        (taken,) = await world.claim()
        await world.do(RetireWorker(WORKER))
        assert (await world.run()).crashes == 1

    async def test_a_workflow_task_clears_the_crashes(self, world: World) -> None:
        await world.register()
        await self.crash(world, 1)
        (taken,) = await world.claim()
        await world.do(advance(claim=taken.run.claim))
        assert (await world.run()).crashes == 0

    async def test_being_blocked_clears_the_crashes(self, world: World) -> None:
        await world.register()
        await self.crash(world, 1)
        (taken,) = await world.claim()
        await world.do(BlockRun("run-1", taken.run.head, taken.run.claim, "quarantine", world.now))
        assert (await world.run()).crashes == 0


@pytest.mark.asyncio
class TestTerminateRequests:
    async def test_a_run_to_be_terminated_is_taken_whatever_its_type(self, world: World) -> None:
        await world.register()
        await world.sleeping(workflow_type="unknown")
        await world.do(RequestTerminate("run-1", "because"))
        (taken,) = await world.claim("order")
        assert (taken.run.terminate, taken.run.claim) == ("because", (await world.run()).claim)

    async def test_it_comes_first_and_once(self, world: World) -> None:
        await world.register()
        await world.start(1)
        world.clock.advance(1)
        await world.start(2)
        await world.do(RequestTerminate("run-2", "because"))
        assert [one.run.run_id for one in await world.claim(limit=1)] == ["run-2"]
        assert [one.run.run_id for one in await world.claim()] == ["run-1"]

    async def test_a_blocked_run_is_terminated_without_waiting(self, world: World) -> None:
        await world.register()
        run = await world.sleeping()
        await world.do(BlockRun("run-1", run.head, None, "why", world.now + MINUTE))
        await world.do(RequestTerminate("run-1", "because"))
        assert len(await world.claim()) == 1

    async def test_a_run_that_killed_its_worker_is_terminated_beside_others(self, world: World) -> None:
        await world.claimed()
        await world.do(RequestTerminate("run-1", "because"))
        assert len((await world.store.claim_runs(WORKER, ["token"], [], suspects=0)).rows) == 1

    async def test_a_run_that_has_gone_on_is_terminated_where_it_is_now(self, world: World) -> None:
        await world.register()
        run = await world.sleeping()
        following = run_row(2, workflow_id="order-1", chain_id="chain-1")
        await world.do(
            advance(seen=run.head, status="continued_as_new", continues=True), CreateRun(following, (message(),))
        )
        await world.do(RequestTerminate("run-1", "because"))
        assert [one.run.terminate for one in await world.claim()] == ["because"]

    async def test_a_stranger_of_the_same_workflow_id_is_not_terminated(self, world: World) -> None:
        for number, status in ((1, "continued_as_new"), (2, "completed")):
            await world.closed(number, status, workflow_id="order-1")
        await world.start(3, workflow_id="order-1")
        for number in (1, 2):
            await world.do(RequestTerminate(f"run-{number}", "because"))
        assert (await world.run("run-3")).terminate is None

    async def test_when_its_taker_dies_another_takes_it(self, world: World) -> None:
        await world.register(OTHER_WORKER, lease=1)
        await world.sleeping()
        await world.do(RequestTerminate("run-1", "because"))
        assert len(await world.claim(worker=OTHER_WORKER)) == 1
        world.clock.advance(1)
        await world.do(BuryWorker(OTHER_WORKER))
        await world.register()
        assert len(await world.claim()) == 1


@pytest.mark.asyncio
class TestZombies:
    async def test_a_worker_that_was_declared_dead_can_write_nothing_of_its_runs(self, world: World) -> None:
        run = await world.claimed()
        world.clock.advance(MINUTE)
        await world.do(BuryWorker(WORKER))
        await world.register(OTHER_WORKER)
        (taken,) = await world.claim(worker=OTHER_WORKER)
        before = await everything(world.store)
        assert await world.refused(advance(seen=run.head, claim=run.claim)) == Conflict("claimed")
        assert await world.refused(ReleaseRun("run-1", run.claim or "")) == Conflict("claimed")
        assert await world.refused(BlockRun("run-1", run.head, run.claim, "why", 0)) == Conflict("claimed")
        assert await world.refused(RenewWorker(WORKER, world.now + MINUTE)) == Conflict("not_found")
        assert await world.claim() == []
        assert await everything(world.store) == before
        await world.do(advance(seen=run.head, claim=taken.run.claim, consume_to=2))

    async def test_a_worker_that_is_late_but_not_buried_goes_on(self, world: World) -> None:
        run = await world.claimed()
        world.clock.advance(2 * MINUTE)
        await world.do(RenewWorker(WORKER, world.now + MINUTE))
        assert await world.refused(BuryWorker(WORKER)) == Conflict("not_found")
        await world.do(advance(seen=run.head, claim=run.claim, consume_to=2))
