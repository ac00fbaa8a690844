"""Runs: created once, advanced by who holds them, closed for good."""

import pytest

from derecho.journal.changes import (
    ANY_CLAIM,
    Advance,
    BuryWorker,
    Conflict,
    CreateRun,
    Deliver,
    Receipt,
    RequestTerminate,
    ScheduleActivity,
)
from derecho.journal.model import CLAIMED, Head, RunFilter
from derecho.testing.conformance.kit import (
    MINUTE,
    WORKER,
    World,
    activity_row,
    advance,
    everything,
    head_after,
    message,
    run_row,
)


@pytest.mark.asyncio
class TestCreateRun:
    async def test_a_new_run_is_ready_and_has_its_messages_in_order(self, world: World) -> None:
        row = await world.start(1, message("start"), message("signal"))
        assert row == run_row(started_at=world.now, inbox_last=2, ready_at=world.now)
        assert await world.inbox() == [message("start").data, message("signal").data]

    async def test_a_start_that_is_delayed_is_ready_at_its_instant(self, world: World) -> None:
        await world.register()
        row = await world.start(ready_at=world.now + MINUTE)
        assert row.ready_at == world.now + MINUTE
        assert await world.claim() == []
        world.clock.advance(MINUTE)
        assert len(await world.claim()) == 1

    async def test_a_workflow_id_with_an_open_run_is_taken(self, world: World) -> None:
        await world.start(1)
        before = await everything(world.store)
        conflict = await world.refused(CreateRun(run_row(2, workflow_id="order-1"), (message(),)))
        assert conflict == Conflict("already_running", "run-1")
        assert await everything(world.store) == before

    async def test_a_workflow_id_is_free_again_when_its_run_has_closed(self, world: World) -> None:
        await world.closed(1)
        await world.start(2, workflow_id="order-1")
        newest = await world.store.find_run("order-1")
        assert newest is not None
        assert newest.run_id == "run-2"

    async def test_creating_a_run_again_is_recognised_and_changes_nothing(self, world: World) -> None:
        creation = CreateRun(run_row(), (message(),))
        await world.do(creation)
        before = await everything(world.store)
        assert await world.do(creation) == Receipt(repeated=True)
        assert await everything(world.store) == before

    async def test_creating_a_run_again_is_recognised_after_it_has_closed(self, world: World) -> None:
        await world.closed(1)
        assert await world.do(CreateRun(run_row(), (message(),))) == Receipt(repeated=True)

    async def test_what_stands_beside_a_repeated_creation_is_not_done_again(self, world: World) -> None:
        start = (CreateRun(run_row(), (message(),)), Deliver(message("signal"), run_id="run-1"))
        assert await world.do(*start) == Receipt((("run-1", 2, False),))
        assert await world.do(*start) == Receipt(repeated=True)
        assert len(await world.inbox()) == 2

    @pytest.mark.parametrize("expected", [None, "run-0", "run-2"])
    async def test_a_start_that_expects_another_newest_run_is_superseded(
        self, world: World, expected: str | None
    ) -> None:
        await world.closed(1)
        creation = CreateRun(run_row(3, workflow_id="order-1"), (message(),), expect_latest=expected)
        assert await world.refused(creation) == Conflict("superseded", "run-1")

    async def test_a_start_that_expects_the_newest_run_follows_it(self, world: World) -> None:
        await world.do(CreateRun(run_row(), (message(),), expect_latest=None))
        await world.do(advance(status="completed"))
        await world.do(CreateRun(run_row(2, workflow_id="order-1"), (message(),), expect_latest="run-1"))

    async def test_of_two_starts_in_one_batch_the_first_wins(self, world: World) -> None:
        results = await world.store.commit(
            [(CreateRun(run_row(number, workflow_id="order-1"), (message(),)),) for number in (1, 2)]
        )
        assert results == [Receipt(), Conflict("already_running", "run-1")]

    async def test_a_refused_child_tells_its_parent_and_an_accepted_one_too(self, world: World) -> None:
        await world.sleeping(1)
        refusal = Deliver(message("refused"), run_id="run-1", drop=True)
        acceptance = Deliver(message("accepted"), run_id="run-1", drop=True)
        for number in (2, 3):
            child = run_row(number, workflow_id="child", parent_run_id="run-1", parent_child=9)
            await world.do(CreateRun(child, (message(),), refusal=refusal, acceptance=acceptance))
        assert await world.inbox() == [message("accepted").data, message("refused").data]
        assert await world.store.get_run("run-3") is None

    async def test_a_run_created_in_the_hands_of_a_live_worker_is_claimed(self, world: World) -> None:
        await world.register()
        row = await world.start(claim="mine", worker=WORKER)
        assert (row.claim, row.worker, row.ready_at) == ("mine", WORKER, CLAIMED)
        assert await world.claim() == []

    async def test_a_run_created_in_the_hands_of_a_dead_worker_is_ready(self, world: World) -> None:
        row = await world.start(claim="mine", worker="nobody")
        assert (row.claim, row.worker, row.ready_at) == (None, None, world.now)


@pytest.mark.asyncio
class TestAdvance:
    async def test_a_workflow_task_is_stored_and_moves_the_head(self, world: World) -> None:
        await world.start()
        first = advance(data='[{"type":"workflow_started"}]', consume_to=1)
        second = advance(seen=head_after(first))
        await world.do(first)
        await world.do(second)
        assert (await world.run()).head == head_after(second) == Head(2, 4, second.row.digest)
        assert (await world.store.load(["run-1"]))["run-1"] == [first.row, second.row]

    async def test_a_run_that_has_read_everything_sleeps(self, world: World) -> None:
        await world.start()
        await world.do(advance(consume_to=1))
        row = await world.run()
        assert (row.ready_at, row.inbox_read, row.inbox_last) == (None, 1, 1)
        assert await world.inbox() == []

    async def test_a_run_with_unread_messages_stays_ready(self, world: World) -> None:
        await world.start(1, message("one"), message("two"))
        world.clock.advance(MINUTE)
        await world.do(advance(consume_to=1))
        assert (await world.run()).ready_at == world.now
        assert await world.inbox() == [message("two").data]

    async def test_more_than_there_is_cannot_be_consumed(self, world: World) -> None:
        await world.start()
        await world.do(advance(consume_to=99))
        assert (await world.run()).inbox_read == 1

    async def test_a_kept_claim_stays_and_a_claim_not_kept_goes(self, world: World) -> None:
        run = await world.claimed()
        kept = advance(seen=run.head, claim=run.claim, keep_claim=True)
        await world.do(kept)
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at) == (run.claim, WORKER, CLAIMED)
        await world.do(advance(seen=head_after(kept), claim=run.claim, consume_to=2))
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at) == (None, None, None)

    async def test_there_is_no_claim_to_keep_on_a_run_that_nobody_holds(self, world: World) -> None:
        run = await world.sleeping()
        await world.do(advance(seen=run.head, keep_claim=True))
        row = await world.run()
        assert (row.claim, row.ready_at) == (None, None)

    async def test_a_run_that_nobody_holds_is_taken_in_the_same_commit(self, world: World) -> None:
        await world.register(WORKER, lease=MINUTE)
        run = await world.sleeping()
        await world.do(advance(seen=run.head, keep_claim=True, take="mine", worker=WORKER))
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at) == ("mine", WORKER, CLAIMED)
        world.clock.advance(MINUTE)
        await world.do(BuryWorker(WORKER))
        assert (await world.run()).ready_at == world.now, "so it is found again when its worker dies"

    async def test_a_run_that_somebody_holds_keeps_that_claim(self, world: World) -> None:
        run = await world.claimed()
        await world.do(advance(seen=run.head, claim=run.claim, keep_claim=True, take="mine", worker=WORKER))
        assert (await world.run()).claim == run.claim

    async def test_a_worker_that_is_dead_takes_nothing(self, world: World) -> None:
        run = await world.sleeping()
        taking = advance(seen=run.head, keep_claim=True, take="mine", worker="a worker of yesterday")
        assert await world.refused(taking) == Conflict("claimed")
        assert (await world.run()).tasks == run.tasks

    async def test_a_run_that_does_not_exist_cannot_advance(self, world: World) -> None:
        assert await world.refused(advance()) == Conflict("not_found")

    async def test_a_closed_run_cannot_advance(self, world: World) -> None:
        run = await world.closed()
        assert await world.refused(advance(seen=run.head)) == Conflict("closed", "completed")

    @pytest.mark.parametrize("wrong", [{"tasks": 0}, {"tasks": 2}, {"events": 3}, {"digest": "other"}])
    async def test_a_history_that_has_moved_is_not_continued(self, world: World, wrong: dict[str, int | str]) -> None:
        run = await world.sleeping()
        seen = Head(**{"tasks": run.tasks, "events": run.events, "digest": run.digest, **wrong})  # type: ignore[arg-type]  # one of each kind
        before = await everything(world.store)
        assert await world.refused(advance(seen=seen)) == Conflict("moved")
        assert await everything(world.store) == before

    async def test_a_workflow_task_with_a_wrong_number_is_refused(self, world: World) -> None:
        run = await world.sleeping()
        right = advance(seen=run.head)
        row = advance(seen=head_after(right)).row
        assert await world.refused(Advance("run-1", run.head, row, 4)) == Conflict("moved")

    @pytest.mark.parametrize("claim", [None, "another's"])
    async def test_a_run_in_other_hands_does_not_advance(self, world: World, claim: str | None) -> None:
        run = await world.claimed()
        assert await world.refused(advance(seen=run.head, claim=claim)) == Conflict("claimed")

    async def test_a_claim_on_a_run_that_nobody_holds_is_not_good(self, world: World) -> None:
        run = await world.sleeping()
        assert await world.refused(advance(seen=run.head, claim="mine")) == Conflict("claimed")

    async def test_any_claim_matches_each_state(self, world: World) -> None:
        run = await world.claimed()
        await world.do(advance(seen=run.head, claim=ANY_CLAIM, status="terminated"))
        run = await world.sleeping(2)
        await world.do(advance("run-2", run.head, claim=ANY_CLAIM, status="terminated"))

    async def test_a_workflow_task_done_again_is_recognised(self, world: World) -> None:
        await world.start()
        first = advance(consume_to=1)
        await world.do(first, ScheduleActivity(activity_row()))
        await world.do(advance(seen=head_after(first)))
        before = await everything(world.store)
        assert await world.do(first, ScheduleActivity(activity_row(99))) == Receipt(repeated=True)
        assert await everything(world.store) == before

    async def test_a_closing_done_again_is_recognised(self, world: World) -> None:
        await world.start()
        closing = advance(status="completed")
        await world.do(closing)
        assert await world.do(closing) == Receipt(repeated=True)

    async def test_a_status_that_is_open_is_recorded(self, world: World) -> None:
        run = await world.sleeping()
        await world.do(advance(seen=run.head, status="cancelling"))
        assert (await world.run()).status == "cancelling"
        assert [row.run_id for row in await world.store.list_runs(RunFilter(status="cancelling"))] == ["run-1"]
        assert await world.store.list_runs(RunFilter(status="running")) == []


@pytest.mark.asyncio
class TestClose:
    async def test_the_end_is_recorded_and_nothing_is_left_in_any_queue(self, world: World) -> None:
        run = await world.claimed()
        await world.activity(5)
        await world.running_activity(6, timeout_at=world.now)
        await world.timer(7, after=0)
        await world.do(RequestTerminate("run-1", "because"))
        world.clock.advance(MINUTE)
        await world.do(advance(seen=run.head, status="completed", outcome='{"a":1}', inbox_seen=2))
        row = await world.run()
        assert (row.status, row.closed_at, row.outcome) == ("completed", world.now, '{"a":1}')
        assert (row.claim, row.worker, row.ready_at, row.terminate, row.inbox_read) == (None, None, None, None, 2)
        pending = await world.store.pending("run-1")
        assert (pending.activities, pending.timers, pending.messages) == ([], [], [])
        assert (await world.store.due_timers(10)).timers == []
        assert (await world.store.overdue(10)).activities == []
        assert await world.claim() == []
        assert await world.claim_activities() == []

    @pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "terminated", "continued_as_new"])
    async def test_each_way_to_end_is_listed(self, world: World, status: str) -> None:
        await world.closed(1, status)
        assert [row.run_id for row in await world.store.closed(["run-1", "run-2"])] == ["run-1"]
        assert (await world.run()).status == status

    async def test_a_run_does_not_close_over_messages_that_it_has_not_seen(self, world: World) -> None:
        run = await world.sleeping()
        await world.do(Deliver(message("late"), run_id="run-1"))
        closing = advance(seen=run.head, status="completed", inbox_seen=run.inbox_last)
        assert await world.refused(closing) == Conflict("unread")
        assert await world.inbox() == [message("late").data]
        await world.do(advance(seen=run.head, status="completed", inbox_seen=2))

    async def test_an_end_by_force_does_not_ask_for_messages(self, world: World) -> None:
        run = await world.sleeping()
        await world.do(Deliver(message("late"), run_id="run-1"))
        await world.do(advance(seen=run.head, status="terminated", claim=ANY_CLAIM))

    async def test_a_chain_goes_on_in_one_commit(self, world: World) -> None:
        run = await world.sleeping()
        following = run_row(2, workflow_id="order-1", chain_id="chain-1")
        await world.do(
            advance(seen=run.head, status="continued_as_new", continues=True, inbox_seen=1),
            CreateRun(following, (message("go on"),), expect_latest="run-1"),
        )
        newest = await world.store.find_run("order-1")
        assert newest is not None
        assert newest.run_id == "run-2"

    async def test_a_chain_that_cannot_go_on_does_not_end_either(self, world: World) -> None:
        run = await world.sleeping(1)
        await world.start(2)
        taken = CreateRun(run_row(3, workflow_id="order-2"), (message(),))
        before = await everything(world.store)
        await world.refused(advance(seen=run.head, status="continued_as_new", continues=True), taken)
        assert await everything(world.store) == before
