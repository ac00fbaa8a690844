"""A commit wakes those whom it concerns and nobody else, so that an engine under load does not look in vain."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, get_args

import pytest

from derecho.journal.changes import (
    BlockRun,
    BuryWorker,
    CancelActivity,
    Deliver,
    DropTimer,
    FinishActivity,
    Heartbeat,
    ReleaseRun,
    RenewWorker,
    RequestTerminate,
    RetireWorker,
    RetryActivity,
)
from derecho.journal.model import Topic
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import MINUTE, WORKER, World, advance, message
from tests.support.kinds import KINDS, new_store

TOPICS: tuple[Topic, ...] = get_args(Topic)


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    clock = VirtualClock()
    store = new_store(request.param, request, clock)
    await store.open()
    yield World(store, clock)
    await store.close()


async def touched(world: World, happen: Awaitable[object]) -> set[Topic]:
    before = {topic: world.store.seen(topic) for topic in TOPICS}
    await happen
    return {topic for topic in TOPICS if world.store.seen(topic) != before[topic]}


async def test_runs_that_become_ready_concern_who_claims_runs(world: World) -> None:
    run = await world.claimed(1)
    assert await touched(world, world.start(2)) == {"runs"}
    assert await touched(world, world.do(advance("run-2", consume_to=1))) == set()
    assert await touched(world, world.do(Deliver(message(), run_id="run-2"))) == {"runs"}
    assert await touched(world, world.do(ReleaseRun("run-1", run.claim or ""))) == {"runs"}
    run = (await world.claim(limit=1))[0].run
    blocked = BlockRun("run-1", run.head, run.claim, "why", world.now + MINUTE)
    assert await touched(world, world.do(blocked)) == {"runs"}
    assert await touched(world, world.do(RequestTerminate("run-1", "why"))) == {"runs"}


async def test_work_in_ones_own_hands_concerns_nobody(world: World) -> None:
    run = await world.claimed()
    mine: dict[str, Any] = {"claim": "mine", "worker": WORKER, "started_at": world.now}
    kept = advance(seen=run.head, claim=run.claim, keep_claim=True, consume_to=2)
    assert await touched(world, world.do(kept)) == set()
    assert await touched(world, world.activity(5, **mine)) == set()
    assert await touched(world, world.do(FinishActivity("run-1", 5, "mine"))) == set()
    assert await touched(world, world.do(Deliver(message(), run_id="run-1"))) == set()
    assert await touched(world, world.do(ReleaseRun("run-1", run.claim or "", ready=True))) == {"runs"}


async def test_a_run_taken_with_its_message_concerns_nobody(world: World) -> None:
    await world.register()
    await world.sleeping()
    deliver = Deliver(message(), run_id="run-1", claim="mine", worker=WORKER)
    assert await touched(world, world.do(deliver)) == set()


async def test_unclaimed_activities_concern_who_claims_activities(world: World) -> None:
    await world.running_activity(5)
    assert await touched(world, world.activity(6)) == {"activities"}
    retry = RetryActivity("run-1", 5, "claim-of-5", 2, world.now + MINUTE, None, None)
    assert await touched(world, world.do(retry)) == {"activities"}
    assert await touched(world, world.do(CancelActivity("run-1", 6))) == set()


@pytest.mark.parametrize("look", ["due_timers", "overdue"])
async def test_only_an_instant_sooner_than_known_concerns_who_waits_for_it(world: World, look: str) -> None:
    make: Callable[[int, int], Awaitable[object]] = {
        "due_timers": lambda number, after: world.timer(number, after=after),
        "overdue": lambda number, after: world.activity(number, timeout_at=world.now + after, due_at=world.now),
    }[look]
    others: set[Topic] = set() if look == "due_timers" else {"activities"}
    assert await touched(world, make(1, 50)) == {"timers"} | others
    await getattr(world.store, look)(10)
    assert await touched(world, make(2, 60)) == others
    assert await touched(world, make(3, 40)) == {"timers"} | others


async def test_deadlines_that_move_away_concern_nobody(world: World) -> None:
    await world.running_activity(timeout_at=world.now + 10)
    await world.timer(after=10)
    await world.store.due_timers(10)
    await world.store.overdue(10)
    assert await touched(world, world.do(Heartbeat("run-1", 5, "claim-of-5", None, world.now + 20))) == set()
    assert await touched(world, world.do(DropTimer("run-1", 7))) == set()
    assert await touched(world, world.do(RenewWorker(WORKER, world.now + 2 * MINUTE))) == set()


async def test_a_worker_that_leaves_concerns_who_could_do_its_work(world: World) -> None:
    await world.claimed()
    await world.running_activity()
    assert await touched(world, world.do(RetireWorker(WORKER))) >= {"runs", "activities"}


async def test_a_worker_that_dies_concerns_who_judges_its_activities(world: World) -> None:
    await world.claimed()
    await world.running_activity()
    world.clock.advance(MINUTE)
    assert await touched(world, world.do(BuryWorker(WORKER))) == {"runs", "timers"}


async def test_a_closed_run_concerns_who_awaits_results(world: World) -> None:
    await world.sleeping()
    run = await world.run()
    assert await touched(world, world.do(advance(seen=run.head, status="completed"))) == {"closed"}


async def test_what_is_refused_concerns_nobody(world: World) -> None:
    await world.refused(Deliver(message(), run_id="run-1"))
    assert await touched(world, world.refused(Deliver(message(), run_id="run-1"))) == set()
