"""Several processes, event loops and threads on one file: nothing is done twice, nobody is left waiting."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from derecho.errors import StoreError
from derecho.journal.changes import Conflict, CreateRun, Deliver, DropTimer, FinishActivity, Receipt
from derecho.journal.model import Topic
from derecho.stores.hints import Hints
from derecho.stores.sqlite import SQLiteStore
from derecho.stores.sqlite.connection import open_writer
from derecho.stores.sqlite.watch import Watch
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import World, advance, message, run_row
from tests.stores.faulty import hear, start_process

PATIENCE = 30.0
NEVER = 3_600.0


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[World, World]]:
    """Two stores on one file, with one clock, as two processes on one host have them."""
    clock = VirtualClock()
    stores = [SQLiteStore(tmp_path / "shop.db", clock=clock) for _ in range(2)]
    await asyncio.gather(*(store.open() for store in stores))
    yield World(stores[0], clock), World(stores[1], clock)
    for store in stores:
        await store.close()


async def test_many_stores_open_a_new_file_at_the_same_time(tmp_path: Path) -> None:
    stores = [SQLiteStore(tmp_path / "shop.db") for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        assert await store.workers() == []
        await store.close()


async def test_of_two_starts_of_a_workflow_id_one_wins(pair: tuple[World, World]) -> None:
    for number in range(20):
        starts = [
            world.commit(CreateRun(run_row(2 * number + side, workflow_id=f"order-{number}"), (message(),)))
            for side, world in enumerate(pair)
        ]
        results = await asyncio.gather(*starts)
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Receipt"]


async def test_a_timer_fires_once_when_two_stores_race(pair: tuple[World, World]) -> None:
    await pair[0].sleeping()
    for number in range(20):
        await pair[0].timer(number, after=0)
        fire = (DropTimer("run-1", number, must_exist=True), Deliver(message(str(number)), run_id="run-1"))
        results = await asyncio.gather(*(world.commit(*fire) for world in pair))
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Receipt"]
    assert await pair[1].inbox() == [message(str(number)).data for number in range(20)]


async def test_an_activity_has_one_outcome_when_two_stores_race(pair: tuple[World, World]) -> None:
    for number in range(20):
        await pair[0].running_activity(number)
        finish = FinishActivity("run-1", number, f"claim-of-{number}")
        results = await asyncio.gather(*(world.commit(finish) for world in pair))
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "Receipt"]


async def test_a_run_advances_once_when_two_stores_race(pair: tuple[World, World]) -> None:
    run = await pair[0].sleeping()
    for number in range(20):
        tasks = [advance(seen=run.head, data=f"[{number},{side}]") for side in range(2)]
        results = await asyncio.gather(*(world.commit(task) for world, task in zip(pair, tasks, strict=True)))
        assert sorted(result.reason if isinstance(result, Conflict) else "" for result in results) == ["", "moved"]
        run = await pair[1].run()
    assert len((await pair[0].store.load(["run-1"]))["run-1"]) == 21


async def test_work_is_shared_and_not_doubled(pair: tuple[World, World]) -> None:
    await pair[0].register("worker-1", "worker-2")
    for number in range(40):
        await pair[0].start(number)
        await pair[0].activity(number)
    claims = [
        world.store.claim_runs(f"worker-{side + 1}", [f"{side}-{turn}-{token}" for token in range(3)], ["order"])
        for turn in range(7)
        for side, world in enumerate(pair)
    ]
    taken = [one.run.run_id for found in await asyncio.gather(*claims) for one in found.rows]
    assert sorted(taken) == sorted(f"run-{number}" for number in range(40))
    attempts = [
        world.claim_activities(worker=f"worker-{side + 1}", limit=3)
        for _ in range(7)
        for side, world in enumerate(pair)
    ]
    begun = [row.activity for found in await asyncio.gather(*attempts) for row in found]
    assert sorted(begun) == list(range(40))


async def test_messages_from_both_sides_have_one_order(pair: tuple[World, World]) -> None:
    await pair[0].sleeping()
    deliveries = [world.do(Deliver(message(), run_id="run-1")) for _ in range(50) for world in pair]
    numbers = [receipt.delivered[0][1] for receipt in await asyncio.gather(*deliveries)]
    assert sorted(numbers) == list(range(2, 102))


@pytest.mark.parametrize("topic", ["runs", "activities", "timers", "closed"])
async def test_what_another_store_writes_wakes_who_waits_here(pair: tuple[World, World], topic: Topic) -> None:
    here, there = pair
    for number in range(3):
        waiting = asyncio.create_task(here.store.wait(topic, here.store.seen(topic), NEVER))
        await asyncio.sleep(0)
        await there.start(number)
        async with asyncio.timeout(PATIENCE):
            await waiting


def test_what_is_written_before_the_first_look_is_noticed(tmp_path: Path) -> None:
    """The thread that looks may have been kept waiting since it connected."""
    path, hints = str(tmp_path / "shop.db"), Hints()
    here, there = (open_writer(path, "full", create=True) for _ in range(2))
    with closing(here), closing(there):
        watch = Watch(path, hints, lambda: None)
        watch.begin(here)
        seen = hints.seen("runs")
        there.execute("UPDATE meta SET value = value + 1 WHERE key = 'now'")
        watch.poll(here)
    assert hints.seen("runs") == seen + 1


async def test_the_clock_of_two_stores_is_one(tmp_path: Path) -> None:
    """The instant of a commit is never before one that another process has stored."""
    ahead, behind = VirtualClock(2_000_000_000), VirtualClock(1_000_000_000)
    one, other = (SQLiteStore(tmp_path / "shop.db", clock=clock) for clock in (ahead, behind))
    await one.commit([(CreateRun(run_row(1), ()),)])
    await other.commit([(CreateRun(run_row(2), ()),)])
    row = await one.get_run("run-2")
    assert row is not None
    assert row.ready_at == other.now() == 2_000_000_000
    await one.close()
    await other.close()


async def test_one_store_serves_several_event_loops(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.commit([(CreateRun(run_row(), ()),)])

    async def deliver_some() -> None:
        for _ in range(25):
            (result,) = await store.commit([(Deliver(message(), run_id="run-1"),)])
            assert isinstance(result, Receipt)

    threads = [threading.Thread(target=asyncio.run, args=(deliver_some(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    await deliver_some()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    row = await store.get_run("run-1")
    assert row is not None
    assert row.inbox_last == 125
    await store.close()


async def test_who_waits_on_another_loop_is_woken(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.open()
    mark, begun = store.seen("runs"), threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.wait_for(store.wait("runs", mark, NEVER), PATIENCE)

    thread = threading.Thread(target=asyncio.run, args=(wait(),))
    thread.start()
    await asyncio.to_thread(begun.wait)
    await store.commit([(CreateRun(run_row(), ()),)])
    await asyncio.to_thread(thread.join)
    await store.close()


async def test_a_loop_that_died_does_not_disturb_the_store(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")

    def leave_a_commit_behind() -> None:
        loop = asyncio.new_event_loop()
        commit = loop.create_task(store.commit([(CreateRun(run_row(), ()),)]))
        loop.run_until_complete(asyncio.sleep(0))
        commit.cancel()
        loop.run_until_complete(asyncio.gather(commit, return_exceptions=True))
        loop.close()

    await store.open()
    await asyncio.to_thread(leave_a_commit_behind)
    await store.commit([(Deliver(message(), run_id="run-1", drop=True),)])
    assert await store.get_run("run-1") is not None
    await store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_store_taken_through_a_fork_says_so(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.open()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            asyncio.set_event_loop(None)
            asyncio.events._set_running_loop(None)
            asyncio.new_event_loop().run_until_complete(store.workers())
        except StoreError as exc:
            code = 0 if "before a fork" in str(exc) else 2
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert await store.workers() == []
    await store.close()


async def test_a_process_that_writes_and_ends_leaves_what_it_wrote(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "shop.db")
    await store.open()
    other = start_process(
        """
        async def main():
            store = SQLiteStore(sys.argv[1])
            await store.commit([(CreateRun(run_row(), (message(),)),)])
            say("written")  # and not closed
        asyncio.run(main())
        """,
        tmp_path / "shop.db",
    )
    assert hear(other) == "written"
    assert other.wait(60) == 0
    other.communicate()
    assert await store.get_run("run-1") is not None
    await store.close()
