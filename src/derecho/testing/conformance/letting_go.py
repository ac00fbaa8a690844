"""Runs that are let go, and runs that are forgotten."""

import pytest

from derecho.journal.changes import (
    BlockRun,
    Conflict,
    ForgetRun,
    Receipt,
    ReleaseRun,
    RequestTerminate,
    ScheduleActivity,
    ScheduleTimer,
)
from derecho.journal.model import Head, RunFilter, TimerRow
from derecho.testing.conformance.kit import MINUTE, OTHER_WORKER, World, activity_row, advance


@pytest.mark.asyncio
class TestLettingGo:
    async def test_a_blocked_run_says_why_and_is_ready_later(self, world: World) -> None:
        run = await world.claimed()
        await world.do(BlockRun("run-1", run.head, run.claim, "no such activity", world.now + MINUTE))
        row = await world.run()
        assert (row.status, row.blocked_reason, row.blocked_count) == ("blocked", "no such activity", 1)
        assert (row.claim, row.worker, row.ready_at) == (None, None, world.now + MINUTE)
        assert await world.claim() == []
        world.clock.advance(MINUTE - 1)
        assert await world.claim() == []
        world.clock.advance(1)
        await world.register(OTHER_WORKER)
        (again,) = await world.claim(worker=OTHER_WORKER)
        await world.do(BlockRun("run-1", again.run.head, again.run.claim, "still", world.now))
        assert (await world.run()).blocked_count == 2

    async def test_a_blocked_run_that_advances_is_blocked_no_more(self, world: World) -> None:
        run = await world.sleeping()
        await world.do(BlockRun("run-1", run.head, None, "why", world.now + MINUTE))
        await world.do(advance(seen=run.head))
        row = await world.run()
        assert (row.status, row.blocked_reason, row.blocked_count, row.ready_at) == ("running", None, 0, None)

    async def test_blocking_asks_what_advancing_asks(self, world: World) -> None:
        assert await world.refused(BlockRun("run-1", Head(), None, "why", 0)) == Conflict("not_found")
        run = await world.claimed()
        assert await world.refused(BlockRun("run-1", Head(), run.claim, "why", 0)) == Conflict("moved")
        assert await world.refused(BlockRun("run-1", run.head, None, "why", 0)) == Conflict("claimed")
        await world.do(advance(seen=run.head, claim=run.claim, status="failed"))
        run = await world.run()
        assert await world.refused(BlockRun("run-1", run.head, None, "why", 0)) == Conflict("closed", "failed")

    async def test_a_run_given_back_is_ready_at_once(self, world: World) -> None:
        run = await world.claimed()
        world.clock.advance(5)
        await world.do(ReleaseRun("run-1", run.claim or ""))
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at, row.crashes) == (None, None, world.now, 0)

    async def test_a_run_given_back_asleep_sleeps_unless_messages_wait(self, world: World) -> None:
        run = await world.claimed()
        await world.do(ReleaseRun("run-1", run.claim or "", ready=False))
        assert (await world.run()).ready_at == world.now
        (again,) = await world.claim()
        kept = advance(seen=run.head, claim=again.run.claim, keep_claim=True, consume_to=2)
        await world.do(kept)
        await world.do(ReleaseRun("run-1", again.run.claim or "", ready=False))
        assert (await world.run()).ready_at is None

    async def test_only_the_holder_gives_a_run_back(self, world: World) -> None:
        assert await world.refused(ReleaseRun("run-1", "mine")) == Conflict("not_found")
        run = await world.claimed()
        assert await world.refused(ReleaseRun("run-1", "another's")) == Conflict("claimed")
        await world.do(ReleaseRun("run-1", run.claim or ""))
        assert await world.refused(ReleaseRun("run-1", run.claim or "")) == Conflict("claimed")
        await world.do(advance(seen=run.head, status="completed"))
        assert await world.refused(ReleaseRun("run-1", run.claim or "")) == Conflict("closed", "completed")

    async def test_a_request_to_terminate_takes_the_run_from_its_holder(self, world: World) -> None:
        run = await world.claimed()
        await world.do(RequestTerminate("run-1", "it spins"))
        row = await world.run()
        assert (row.terminate, row.claim, row.worker, row.ready_at) == ("it spins", None, None, world.now)
        assert await world.refused(advance(seen=run.head, claim=run.claim)) == Conflict("claimed")

    async def test_a_request_to_terminate_what_has_ended_is_harmless(self, world: World) -> None:
        await world.do(RequestTerminate("nothing", "why"))
        row = await world.closed()
        await world.do(RequestTerminate("run-1", "why"))
        assert await world.run() == row


@pytest.mark.asyncio
class TestForgetRun:
    async def test_a_closed_run_is_forgotten_with_its_history(self, world: World) -> None:
        await world.closed()
        await world.do(ForgetRun("run-1"))
        assert await world.store.get_run("run-1") is None
        assert (await world.store.load(["run-1"]))["run-1"] == []
        assert await world.store.find_run("order-1") is None
        assert await world.store.list_runs(RunFilter()) == []
        assert await world.refused(ForgetRun("run-1")) == Conflict("not_found")

    async def test_an_open_run_is_not_forgotten(self, world: World) -> None:
        await world.start()
        assert await world.refused(ForgetRun("run-1")) == Conflict("claimed")

    @pytest.mark.parametrize("forgotten", [(3,), (2, 3), (3, 2), (1, 3), (2,), (1, 2, 3)])
    async def test_the_newest_run_that_is_left_is_found(self, world: World, forgotten: tuple[int, ...]) -> None:
        for number in (1, 2, 3):
            await world.closed(number, workflow_id="order-1")
        for number in forgotten:
            await world.do(ForgetRun(f"run-{number}"))
        left = [f"run-{number}" for number in (1, 2, 3) if number not in forgotten]
        newest = await world.store.find_run("order-1")
        assert (newest.run_id if newest else None) == (left[-1] if left else None)
        await world.start(4, workflow_id="order-1")

    async def test_all_runs_of_a_workflow_id_are_forgotten_in_one_batch(self, world: World) -> None:
        for number in (1, 2, 3):
            await world.closed(number, workflow_id="order-1")
        results = await world.store.commit([(ForgetRun(f"run-{number}"),) for number in (3, 1, 2, 3)])
        assert results == [Receipt(), Receipt(), Receipt(), Conflict("not_found")]
        assert await world.store.find_run("order-1") is None
        assert await world.store.list_runs(RunFilter()) == []

    async def test_a_timer_and_an_activity_of_a_run_go_in_one_transition_with_its_task(self, world: World) -> None:
        await world.start()
        task = advance(consume_to=1)
        await world.do(task, ScheduleActivity(activity_row()), ScheduleTimer(TimerRow("run-1", 7, 1)))
        pending = await world.store.pending("run-1")
        assert pending.activities == [activity_row()]
        assert pending.timers == [TimerRow("run-1", 7, 1)]
