"""A run that is created with its first workflow task done: it stands behind that task, whoever did it."""

import pytest
from msgspec.structs import replace

from derecho.clock import SECOND
from derecho.journal.changes import Conflict, CreateRun, Deliver, Receipt, RetireWorker, ScheduleActivity
from derecho.journal.model import CLAIMED
from derecho.testing.conformance.kit import (
    OTHER_WORKER,
    WORKER,
    World,
    activity_row,
    advance,
    everything,
    head_after,
    message,
    run_row,
)

DATA = '[{"type":"workflow_started"}]'
FIRST = advance(data=DATA)


def born(*, keep_claim: bool = False, worker: str = WORKER) -> CreateRun:
    """A start of `run-1` with `FIRST`, done by a worker."""
    row = run_row(claim="mine", worker=worker, ready_at=CLAIMED, tasks=1, events=FIRST.events, digest=FIRST.row.digest)
    return CreateRun(row, (), first=FIRST.row, keep_claim=keep_claim)


@pytest.mark.asyncio
class TestFirstTask:
    async def test_the_run_stands_behind_its_first_task_and_sleeps(self, world: World) -> None:
        await world.register()
        assert await world.do(born()) == Receipt()
        row = await world.run()
        assert (row.head, row.status, row.inbox_last) == (head_after(FIRST), "running", 0)
        assert (row.claim, row.worker, row.ready_at) == (None, None, None)
        assert (await world.store.load(["run-1"]))["run-1"] == [FIRST.row]
        assert await world.claim() == []

    async def test_a_message_wakes_it_and_its_next_task_follows(self, world: World) -> None:
        await world.register()
        await world.do(born())
        await world.do(Deliver(message("go"), run_id="run-1"))
        (taken,) = await world.claim()
        assert taken.run.head == head_after(FIRST)
        second = advance(seen=head_after(FIRST), claim=taken.run.claim, consume_to=1)
        await world.do(second)
        assert (await world.store.load(["run-1"]))["run-1"] == [FIRST.row, second.row]

    async def test_with_its_claim_it_stays_with_its_worker_until_that_leaves(self, world: World) -> None:
        await world.register()
        await world.do(born(keep_claim=True))
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at) == ("mine", WORKER, CLAIMED)
        assert await world.claim() == []
        await world.register(OTHER_WORKER)
        await world.do(RetireWorker(WORKER))
        (taken,) = await world.claim(worker=OTHER_WORKER)
        assert taken.run.head == head_after(FIRST)

    @pytest.mark.parametrize("keep_claim", [True, False])
    async def test_a_worker_that_is_not_registered_creates_nothing(self, world: World, keep_claim: bool) -> None:
        """Nobody would notice its death, and what its first task began might begin elsewhere too."""
        activity = ScheduleActivity(activity_row(3, claim="token", worker="nobody", started_at=1))
        assert await world.refused(born(keep_claim=keep_claim, worker="nobody"), activity) == Conflict("claimed")
        assert await world.store.get_run("run-1") is None
        assert (await world.store.load(["run-1"]))["run-1"] == []

    async def test_repeating_it_has_no_effect(self, world: World) -> None:
        await world.register()
        birth = (born(), ScheduleActivity(activity_row(3, claim="token", worker=WORKER, started_at=1)))
        await world.do(*birth)
        before = await everything(world.store)
        assert await world.do(*birth) == Receipt(repeated=True)
        assert await everything(world.store) == before

    async def test_a_refused_one_leaves_no_task_and_no_activity(self, world: World) -> None:
        await world.register()
        await world.start(2, workflow_id="order-1")
        birth = (born(), ScheduleActivity(activity_row(3)))
        assert await world.refused(*birth) == Conflict("already_running", "run-2")
        assert await world.store.get_run("run-1") is None
        assert (await world.store.load(["run-1"]))["run-1"] == []
        assert await world.claim_activities() == []

    async def test_its_activity_can_be_under_way_from_the_start(self, world: World) -> None:
        await world.register()
        row = activity_row(3, claim="token", worker=WORKER, started_at=world.now, timeout_at=world.now + SECOND)
        await world.do(born(), ScheduleActivity(row))
        assert await world.activities() == [row]
        assert await world.claim_activities() == []

    async def test_it_may_close_in_the_commit_that_creates_it(self, world: World) -> None:
        await world.register()
        row = run_row(claim="mine", worker=WORKER, ready_at=CLAIMED)
        end = advance(claim="mine", status="completed", outcome='{"type":"workflow_completed"}', inbox_seen=0)
        await world.do(CreateRun(row, ()), end)
        closed = await world.run()
        assert (closed.status, closed.head, closed.closed_at) == ("completed", head_after(end), world.now)
        assert await world.do(CreateRun(replace(row, run_id="run-9"), ())) == Receipt()
