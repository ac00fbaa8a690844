"""Reads: runs by id, by parent, by page; workers; and the clock that never goes back."""

import pytest

from derecho.journal.changes import BuryWorker, Conflict, CreateRun, RegisterWorker, RenewWorker, RetireWorker
from derecho.journal.model import RunFilter, WorkerRow
from derecho.journal.store import DueTimers, Overdue, Pending
from derecho.journal.wire import HistoryRow
from derecho.testing.conformance.kit import MINUTE, OTHER_WORKER, WORKER, World, advance, message, run_row


@pytest.mark.asyncio
class TestReads:
    async def test_an_empty_store_has_nothing(self, world: World) -> None:
        store = world.store
        assert await store.get_run("run-1") is None
        assert await store.find_run("order-1") is None
        assert (await store.load(["run-1"]))["run-1"] == []
        assert await store.pending("run-1") == Pending([], [], [])
        assert await store.children("run-1") == []
        assert await store.closed(["run-1"]) == []
        assert await store.list_runs(RunFilter()) == []
        assert await store.workers() == []
        assert await store.due_timers(10) == DueTimers([], None)
        assert await store.overdue(10) == Overdue([], [], None)
        assert await store.commit([]) == []

    async def test_what_a_run_waits_for_is_in_order_of_event_ids(self, world: World) -> None:
        await world.start(1)
        for number in (9, 3, 5):
            await world.activity(number)
            await world.timer(number + 1)
        pending = await world.store.pending("run-1")
        assert [row.activity for row in pending.activities] == [3, 5, 9]
        assert [row.timer for row in pending.timers] == [4, 6, 10]

    async def test_histories_are_told_for_all_runs_that_are_asked_for(self, world: World) -> None:
        wanted: dict[str, list[HistoryRow]] = {"run-1": [], "run-2": [], "run-3": [], "nothing": []}
        for number in (1, 2, 3):
            await world.start(number)
        for number in range(12):  # more than nine, so that an order by text would show
            for run_id in ("run-3", "run-1"):
                task = advance(run_id, seen=(await world.run(run_id)).head, data=f"[{number}]")
                wanted[run_id].append(task.row)
                await world.do(task)
        assert await world.store.load(list(wanted)) == wanted
        assert await world.store.load(["run-3", "run-3"]) == {"run-3": wanted["run-3"]}
        assert await world.store.load([]) == {}

    async def test_closed_runs_are_told_in_the_order_asked_for(self, world: World) -> None:
        for number in (1, 2, 3):
            await world.closed(number)
        await world.start(4)
        found = await world.store.closed(["run-3", "run-4", "run-1", "nothing"])
        assert [row.run_id for row in found] == ["run-3", "run-1"]
        assert await world.store.closed([]) == []

    async def test_children_are_those_that_are_open(self, world: World) -> None:
        await world.start(1)
        for number in (4, 2, 3):
            await world.start(number, parent_run_id="run-1", parent_child=number, close_policy="terminate")
        await world.start(5, parent_run_id="run-2")
        await world.do(advance("run-3", status="completed"))
        children = await world.store.children("run-1")
        assert [row.run_id for row in children] == ["run-2", "run-4"]
        assert {row.close_policy for row in children} == {"terminate"}

    async def test_children_of_a_closed_parent_are_told(self, world: World) -> None:
        await world.closed(1)
        await world.start(2, parent_run_id="run-1", parent_child=9)
        assert len(await world.store.children("run-1")) == 1
        await world.do(advance("run-2", status="completed"))
        assert await world.store.children("run-1") == []


@pytest.mark.asyncio
class TestListRuns:
    async def ids(self, world: World, **fields: object) -> list[str]:
        found = await world.store.list_runs(RunFilter(**fields))  # type: ignore[arg-type]  # whichever the test is about
        return [row.run_id.removeprefix("run-") for row in found]

    async def many(self, world: World) -> None:
        """Runs 1 to 6: two types, three workflow ids, open and closed, the last two started at the same instant."""
        for number in range(1, 7):
            kind = "ship" if number % 2 else "order"
            await world.start(number, workflow_type=kind, workflow_id=f"id-{(number + 1) // 2}")
            if number != 6:
                await world.do(advance(f"run-{number}", status="failed" if number < 3 else "completed"))
            world.clock.advance(number < 5)

    async def test_the_newest_start_comes_first_and_ties_by_run_id(self, world: World) -> None:
        await self.many(world)
        assert await self.ids(world) == ["6", "5", "4", "3", "2", "1"]
        assert await self.ids(world, limit=2) == ["6", "5"]
        assert await self.ids(world, limit=0) == []

    async def test_filters_narrow_alone_and_together(self, world: World) -> None:
        await self.many(world)
        assert await self.ids(world, workflow_type="ship") == ["5", "3", "1"]
        assert await self.ids(world, status="completed") == ["5", "4", "3"]
        assert await self.ids(world, status="running") == ["6"]
        assert await self.ids(world, workflow_id="id-2") == ["4", "3"]
        assert await self.ids(world, workflow_type="ship", status="completed") == ["5", "3"]
        assert await self.ids(world, workflow_id="id-3", status="completed") == ["5"]
        assert await self.ids(world, workflow_id="id-3", workflow_type="order") == ["6"]
        assert await self.ids(world, workflow_id="id-3", workflow_type="order", status="failed") == []

    @pytest.mark.parametrize(
        "fields",
        [{}, {"workflow_type": "ship"}, {"status": "completed"}, {"workflow_id": "id-3"}],
        ids=["all", "type", "status", "workflow id"],
    )
    @pytest.mark.parametrize("size", [1, 2, 4])
    async def test_pages_join_without_gap_or_overlap(self, world: World, fields: dict[str, str], size: int) -> None:
        await self.many(world)
        whole = await self.ids(world, **fields)
        pages: list[str] = []
        before: tuple[int, str] | None = None
        while page := await self.ids(world, before=before, limit=size, **fields):
            pages += page
            last = await world.run(f"run-{page[-1]}")
            before = (last.started_at, last.run_id)
        assert pages == whole


@pytest.mark.asyncio
class TestWorkers:
    async def test_live_workers_are_told_by_name(self, world: World) -> None:
        await world.register(OTHER_WORKER, WORKER)
        row = WorkerRow(WORKER, "test", world.now + MINUTE, ["workflow:order"])
        assert await world.store.workers() == [row, WorkerRow(OTHER_WORKER, *(row.name, row.lease_until, row.serves))]

    async def test_registering_again_replaces_what_is_served(self, world: World) -> None:
        await world.register()
        row = WorkerRow(WORKER, "renamed", world.now + 1, ["activity:charge", "workflow:ship"])
        await world.do(RegisterWorker(row))
        assert await world.store.workers() == [row]

    async def test_a_lease_that_has_run_out_makes_a_worker_dead_until_it_is_renewed(self, world: World) -> None:
        await world.register(lease=10)
        world.clock.advance(9)
        assert len(await world.store.workers()) == 1
        world.clock.advance(1)
        assert await world.store.workers() == []
        assert [row.worker for row in (await world.store.overdue(10)).dead] == [WORKER]
        await world.do(RenewWorker(WORKER, world.now + 10))
        assert len(await world.store.workers()) == 1

    async def test_a_worker_that_is_alive_is_not_buried(self, world: World) -> None:
        assert await world.refused(BuryWorker(WORKER)) == Conflict("not_found")
        await world.register(lease=10)
        assert await world.refused(BuryWorker(WORKER)) == Conflict("not_found")
        world.clock.advance(10)
        await world.do(BuryWorker(WORKER))
        assert await world.refused(BuryWorker(WORKER)) == Conflict("not_found")

    async def test_a_worker_that_retires_hands_its_runs_back(self, world: World) -> None:
        run = await world.claimed()
        world.clock.advance(5)
        await world.do(RetireWorker(WORKER))
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at, row.crashes) == (None, None, world.now, 0)
        assert await world.store.workers() == []
        assert await world.refused(advance(seen=run.head, claim=run.claim)) == Conflict("claimed")
        await world.do(RetireWorker(WORKER))

    async def test_other_workers_keep_what_they_hold(self, world: World) -> None:
        await world.claimed(1)
        await world.register(OTHER_WORKER, lease=1)
        await world.start(2)
        await world.claim(worker=OTHER_WORKER)
        world.clock.advance(1)
        await world.do(BuryWorker(OTHER_WORKER))
        assert (await world.run("run-1")).worker == WORKER
        assert (await world.run("run-2")).worker is None

    async def test_an_unregistered_worker_cannot_renew(self, world: World) -> None:
        assert await world.refused(RenewWorker(WORKER, 1)) == Conflict("not_found")


@pytest.mark.asyncio
class TestNow:
    async def test_the_clock_never_goes_back(self, world: World) -> None:
        before = world.now
        world.clock.advance(-MINUTE)
        assert world.now == before
        await world.do(CreateRun(run_row(), (message(),)))
        assert (await world.run()).ready_at == before
        world.clock.advance(MINUTE + 1)
        assert world.now == before + 1
