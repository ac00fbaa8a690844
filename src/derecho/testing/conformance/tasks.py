"""Activities and timers: one outcome each, in the hands of one worker, looked at without being taken."""

import asyncio
from functools import partial

import pytest

from derecho.clock import SECOND
from derecho.journal.changes import (
    BuryWorker,
    CancelActivity,
    Conflict,
    Deliver,
    DropTimer,
    FinishActivity,
    Heartbeat,
    RetireWorker,
    RetryActivity,
    ScheduleActivity,
    ScheduleTimer,
)
from derecho.journal.model import ActivityRow, AttemptState, OverdueActivity, TimerRow
from derecho.journal.store import Taken
from derecho.testing.conformance.kit import MINUTE, OTHER_WORKER, WORKER, World, activity_row, everything, message


def nothing_until(at: int | None) -> Taken[ActivityRow]:
    return Taken([], at)


@pytest.mark.asyncio
class TestClaimActivities:
    async def test_a_claim_begins_the_attempt_and_its_deadlines(self, world: World) -> None:
        await world.register()
        await world.start()
        await world.activity()
        world.clock.advance(MINUTE)
        (row,) = (await world.store.claim_activities(WORKER, ["token"], ["charge"], ["default"])).rows
        assert (row.claim, row.worker, row.started_at, row.attempt) == ("token", WORKER, world.now, 1)
        assert row.timeout_at == world.now + 30 * SECOND
        assert await world.activities() == [row]

    async def test_an_activity_is_claimed_once(self, world: World) -> None:
        await world.register(WORKER, OTHER_WORKER)
        for number in range(20):
            await world.activity(number)
        claims = (world.claim_activities(worker=worker, limit=4) for worker in (WORKER, OTHER_WORKER) * 4)
        taken = [row for found in await asyncio.gather(*claims) for row in found]
        assert sorted(row.activity for row in taken) == list(range(20))
        assert len({row.claim for row in taken}) == 20

    async def test_the_longest_due_come_first_and_no_more_than_asked_for(self, world: World) -> None:
        await world.register()
        for number, due_at in ((1, 30), (2, 10), (3, 20), (4, 10)):
            await world.activity(number, due_at=due_at, name="charge" if number % 2 else "ship")
        taken = [await world.claim_activities("charge", "ship", limit=limit) for limit in (1, 2, 5)]
        assert [[row.activity for row in found] for found in taken] == [[2], [4, 3], [1]]

    async def test_other_names_and_other_queues_are_left(self, world: World) -> None:
        await world.register()
        await world.activity(1, name="ship")
        await world.activity(2, queue="gpu")
        assert await world.claim_activities() == []
        taken = (await world.store.claim_activities(WORKER, world.tokens(5), ["charge"], ["gpu", "default"])).rows
        assert [row.activity for row in taken] == [2]
        assert (await world.store.claim_activities(WORKER, world.tokens(5), [], ["default"])).rows == []
        assert (await world.store.claim_activities(WORKER, world.tokens(5), ["ship"], [])).rows == []
        assert (await world.store.claim_activities(WORKER, [], ["ship"], ["default"])).rows == []

    async def test_an_activity_that_is_not_due_waits(self, world: World) -> None:
        await world.register()
        await world.activity(due_at=world.now + MINUTE)
        world.clock.advance(MINUTE - 1)
        assert await world.claim_activities() == []
        world.clock.advance(1)
        assert len(await world.claim_activities()) == 1

    async def test_a_claim_says_when_the_first_activity_is_due_though_it_takes_none(self, world: World) -> None:
        claim = partial(world.store.claim_activities, WORKER, ["token"], ["charge", "ship"], ["default", "gpu"])
        await world.register()
        assert await claim() == nothing_until(None)
        places = [("charge", "default", 3), ("ship", "gpu", 2), ("bill", "default", 1), ("ship", "other", 1)]
        for number, (name, queue, after) in enumerate(places, 5):
            await world.activity(number, name=name, queue=queue, due_at=world.now + after * MINUTE)
        first_at = world.now + 2 * MINUTE
        assert await claim() == nothing_until(first_at)
        world.clock.advance(2 * MINUTE)
        found = await claim()
        assert ([row.activity for row in found.rows], found.first_at) == ([6], first_at)
        assert await claim() == nothing_until(first_at + MINUTE)

    async def test_a_worker_that_is_not_registered_gets_nothing(self, world: World) -> None:
        await world.activity()
        assert await world.claim_activities() == []

    async def test_an_activity_scheduled_in_a_workers_hands_is_its_own(self, world: World) -> None:
        row = await world.running_activity()
        assert await world.claim_activities() == []
        assert await world.activities() == [row]

    async def test_the_state_of_attempts_is_told_in_the_order_asked_for(self, world: World) -> None:
        await world.running_activity(5)
        await world.activity(6)
        await world.running_activity(7, run_id="run-2")
        await world.do(CancelActivity("run-2", 7))
        found = await world.store.attempts([("run-2", 7), ("run-1", 9), ("run-1", 6), ("run-1", 5)])
        assert found == [
            AttemptState("run-2", 7, "claim-of-7", True),
            AttemptState("run-1", 6, None, False),
            AttemptState("run-1", 5, "claim-of-5", False),
        ]
        assert await world.store.attempts([]) == []


@pytest.mark.asyncio
class TestOutcomes:
    async def test_an_activity_with_its_outcome_is_gone(self, world: World) -> None:
        await world.running_activity()
        finish = FinishActivity("run-1", 5, "claim-of-5")
        await world.do(finish)
        assert await world.activities() == []
        assert await world.refused(finish) == Conflict("not_found")

    async def test_an_activity_that_never_began_can_have_an_outcome(self, world: World) -> None:
        await world.register()
        await world.activity()
        await world.do(FinishActivity("run-1", 5, None))
        assert await world.activities() == []
        assert await world.claim_activities() == []

    @pytest.mark.parametrize("claim", [None, "another's"])
    async def test_only_the_holder_gives_an_outcome(self, world: World, claim: str | None) -> None:
        await world.running_activity()
        before = await everything(world.store)
        assert await world.refused(FinishActivity("run-1", 5, claim)) == Conflict("not_found")
        assert await world.refused(FinishActivity("run-1", 6, "claim-of-5")) == Conflict("not_found")
        assert await world.refused(FinishActivity("run-2", 5, "claim-of-5")) == Conflict("not_found")
        assert await everything(world.store) == before

    async def test_of_two_outcomes_in_one_batch_the_first_counts(self, world: World) -> None:
        await world.start()
        await world.running_activity()
        finish = FinishActivity("run-1", 5, "claim-of-5")
        outcomes = [(finish, Deliver(message(text), run_id="run-1")) for text in ("done", "timed out")]
        results = await world.store.commit(outcomes)
        assert isinstance(results[1], Conflict)
        assert await world.inbox() == [message("start").data, message("done").data]

    async def test_a_failed_attempt_is_due_again(self, world: World) -> None:
        await world.running_activity(heartbeat='"half"')
        due_at = world.now + MINUTE
        await world.do(RetryActivity("run-1", 5, "claim-of-5", 2, due_at, due_at + MINUTE, '{"type":"x"}'))
        (row,) = await world.activities()
        assert (row.claim, row.worker, row.started_at, row.attempt) == (None, None, None, 2)
        assert (row.due_at, row.timeout_at, row.last_failure) == (due_at, due_at + MINUTE, '{"type":"x"}')
        assert row.heartbeat == '"half"', "the next attempt reads how far this one came"
        world.clock.advance(MINUTE)
        (again,) = await world.claim_activities()
        assert again.attempt == 2

    async def test_only_the_holder_ends_an_attempt(self, world: World) -> None:
        await world.running_activity(5)
        await world.activity(6)
        for activity, claim in ((5, "another's"), (6, "claim-of-6"), (7, "claim-of-7")):
            retry = RetryActivity("run-1", activity, claim, 2, 0, None, None)
            assert await world.refused(retry) == Conflict("not_found")

    async def test_an_attempt_that_was_ended_cannot_be_ended_again(self, world: World) -> None:
        await world.running_activity()
        retry = RetryActivity("run-1", 5, "claim-of-5", 2, 0, None, None)
        await world.do(retry)
        assert await world.refused(retry) == Conflict("not_found")
        assert await world.refused(FinishActivity("run-1", 5, "claim-of-5")) == Conflict("not_found")

    async def test_progress_is_kept_and_pushes_the_deadline(self, world: World) -> None:
        await world.running_activity(timeout_at=world.now + 1)
        await world.do(Heartbeat("run-1", 5, "claim-of-5", '"half"', world.now + MINUTE))
        (row,) = await world.activities()
        assert (row.heartbeat, row.timeout_at) == ('"half"', world.now + MINUTE)
        world.clock.advance(1)
        assert (await world.store.overdue(10)).activities == []

    async def test_only_the_holder_reports_progress(self, world: World) -> None:
        await world.running_activity(5)
        await world.activity(6)
        for activity, claim in ((5, "another's"), (6, "claim-of-6"), (7, "claim-of-7")):
            assert await world.refused(Heartbeat("run-1", activity, claim, "1", None)) == Conflict("not_found")


@pytest.mark.asyncio
class TestCancelActivity:
    async def test_a_running_activity_is_flagged(self, world: World) -> None:
        await world.start()
        row = await world.running_activity()
        await world.do(CancelActivity("run-1", 5, message("cancelled")))
        (flagged,) = await world.activities()
        assert flagged.cancel_requested
        assert flagged.claim == row.claim
        assert await world.inbox() == [message("start").data]

    async def test_one_that_has_not_begun_is_removed_and_its_run_told(self, world: World) -> None:
        await world.register()
        await world.sleeping()
        await world.activity()
        await world.do(CancelActivity("run-1", 5, message("cancelled")))
        assert await world.activities() == []
        assert await world.claim_activities() == []
        assert await world.inbox() == [message("cancelled").data]
        assert (await world.run()).ready_at == world.now

    async def test_nobody_is_told_without_a_message(self, world: World) -> None:
        await world.sleeping()
        await world.activity()
        await world.do(CancelActivity("run-1", 5))
        assert await world.inbox() == []

    async def test_one_that_has_its_outcome_is_left_alone(self, world: World) -> None:
        await world.sleeping()
        await world.do(CancelActivity("run-1", 5, message("cancelled")))
        assert await world.inbox() == []

    async def test_one_that_would_be_retried_later_is_due_at_once(self, world: World) -> None:
        await world.running_activity()
        await world.do(CancelActivity("run-1", 5))
        await world.do(RetryActivity("run-1", 5, "claim-of-5", 2, world.now + MINUTE, None, None))
        (row,) = await world.claim_activities()
        assert row.cancel_requested


@pytest.mark.asyncio
class TestTimers:
    async def test_due_timers_are_told_soonest_first_with_the_next_instant(self, world: World) -> None:
        for timer, after in ((1, 30), (2, 10), (3, 20), (4, MINUTE)):
            await world.timer(timer, after=after)
        assert await world.store.due_timers(10) == await world.store.due_timers(10)
        assert (await world.store.due_timers(10)).next_at == world.now + 10
        world.clock.advance(30)
        due = await world.store.due_timers(2)
        assert [row.timer for row in due.timers] == [2, 3]
        assert due.next_at == world.now, "one more is due"
        due = await world.store.due_timers(3)
        assert [row.timer for row in due.timers] == [2, 3, 1]
        assert due.next_at == world.now + MINUTE - 30

    async def test_there_is_no_next_instant_without_timers(self, world: World) -> None:
        assert (await world.store.due_timers(10)).next_at is None

    async def test_a_timer_is_not_due_before_its_instant(self, world: World) -> None:
        row = await world.timer()
        world.clock.advance(MINUTE - 1)
        assert (await world.store.due_timers(10)).timers == []
        world.clock.advance(1)
        assert (await world.store.due_timers(10)).timers == [row]

    async def test_a_look_takes_nothing(self, world: World) -> None:
        await world.timer(after=0)
        assert await world.store.due_timers(10) == await world.store.due_timers(10)
        assert len((await world.store.pending("run-1")).timers) == 1

    async def test_a_timer_fires_once_when_two_workers_race(self, world: World) -> None:
        await world.sleeping()
        await world.timer(after=0)
        fire = (DropTimer("run-1", 7, must_exist=True), Deliver(message("fired"), run_id="run-1"))
        results = await asyncio.gather(*(world.store.commit([fire]) for _ in range(2)))
        assert sorted(isinstance(result, Conflict) for (result,) in results) == [False, True]
        assert await world.inbox() == [message("fired").data]
        assert (await world.store.due_timers(10)).timers == []

    async def test_a_timer_that_cannot_be_delivered_stays(self, world: World) -> None:
        await world.timer(after=0)
        await world.refused(DropTimer("run-1", 7, must_exist=True), Deliver(message(), run_id="nothing"))
        assert (await world.store.due_timers(10)).timers == [TimerRow("run-1", 7, world.now)]

    async def test_a_cancelled_timer_is_gone_and_may_be_gone_already(self, world: World) -> None:
        await world.timer()
        await world.do(DropTimer("run-1", 7))
        await world.do(DropTimer("run-1", 7))
        assert await world.refused(DropTimer("run-1", 7, must_exist=True)) == Conflict("not_found")
        assert (await world.store.due_timers(10)).next_at is None

    async def test_a_timer_cancelled_and_scheduled_anew_fires_at_its_new_instant(self, world: World) -> None:
        await world.timer(after=10)
        await world.do(DropTimer("run-1", 7))
        await world.do(ScheduleTimer(TimerRow("run-1", 7, world.now + 20)))
        world.clock.advance(10)
        assert (await world.store.due_timers(10)).timers == []
        world.clock.advance(10)
        assert len((await world.store.due_timers(10)).timers) == 1


@pytest.mark.asyncio
class TestOverdue:
    async def test_activities_past_their_deadline_are_told_soonest_first(self, world: World) -> None:
        for activity, after in ((1, 30), (2, 10), (3, MINUTE)):
            await world.activity(activity, timeout_at=world.now + after)
        await world.activity(4)
        assert (await world.store.overdue(10)).next_at == world.now + 10
        world.clock.advance(30)
        found = await world.store.overdue(10)
        assert [(late.row.activity, late.lost) for late in found.activities] == [(2, False), (1, False)]
        assert found.next_at == world.now + MINUTE - 30
        assert (await world.store.overdue(1)).next_at == world.now, "one more is overdue"
        assert await world.store.overdue(10) == found, "a look takes nothing"

    async def test_an_activity_of_a_dead_worker_is_lost_at_once(self, world: World) -> None:
        await world.running_activity(5, timeout_at=world.now + 10 * MINUTE)
        world.clock.advance(MINUTE)
        assert [row.worker for row in (await world.store.overdue(10)).dead] == [WORKER]
        assert (await world.store.overdue(10)).activities == []
        await world.do(BuryWorker(WORKER))
        (row,) = await world.activities()
        assert (await world.store.overdue(10)).activities == [OverdueActivity(row, lost=True)]
        assert (await world.store.overdue(10)).dead == []

    async def test_an_activity_that_a_dead_worker_schedules_for_itself_is_lost(self, world: World) -> None:
        row = activity_row(claim="mine", worker="nobody", started_at=1)
        await world.do(ScheduleActivity(row))
        assert (await world.store.overdue(10)).activities == [OverdueActivity(row, lost=True)]

    async def test_an_activity_that_takes_the_place_of_a_lost_one_is_not_lost(self, world: World) -> None:
        await world.do(ScheduleActivity(activity_row(claim="mine", worker="nobody", started_at=1)))
        await world.activity()
        assert (await world.store.overdue(10)).activities == []
        await world.register()
        assert len(await world.claim_activities()) == 1

    async def test_a_lost_activity_that_is_retried_or_finished_is_lost_no_more(self, world: World) -> None:
        await world.running_activity(5, timeout_at=world.now)
        await world.running_activity(6)
        world.clock.advance(MINUTE)
        await world.do(BuryWorker(WORKER))
        found = await world.store.overdue(1)
        assert [late.row.activity for late in found.activities] == [5]
        assert found.next_at == world.now, "one more is lost"
        await world.do(RetryActivity("run-1", 5, "claim-of-5", 2, world.now, None, None))
        await world.do(FinishActivity("run-1", 6, "claim-of-6"))
        assert (await world.store.overdue(10)).activities == []
        await world.register(OTHER_WORKER)
        assert len(await world.claim_activities(worker=OTHER_WORKER)) == 1

    async def test_a_lease_that_runs_out_is_the_next_instant(self, world: World) -> None:
        await world.register(lease=10)
        await world.activity(timeout_at=world.now + 20)
        assert (await world.store.overdue(10)).next_at == world.now + 10

    async def test_a_worker_that_retires_hands_its_activities_back(self, world: World) -> None:
        await world.running_activity(timeout_at=world.now + 1, close_at=world.now + MINUTE, attempt=3)
        world.clock.advance(1)
        await world.do(RetireWorker(WORKER))
        (row,) = await world.activities()
        assert (row.claim, row.worker, row.started_at, row.attempt) == (None, None, None, 3)
        assert (row.due_at, row.timeout_at) == (world.now, row.close_at)
        assert (await world.store.overdue(10)).activities == []
