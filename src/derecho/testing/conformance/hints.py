"""Hints: nothing that happens between a look and the wait after it is missed. Nothing here measures time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from derecho.journal.changes import Deliver
from derecho.journal.model import Topic
from derecho.testing.conformance.kit import MINUTE, World, advance, message

NEVER = 3_600.0
PATIENCE = 30.0
"""Seconds after which a wait that should have ended is a failure."""


async def _run_becomes_ready(world: World) -> None:
    await world.do(Deliver(message(), run_id="run-1"))


async def _activity_is_scheduled(world: World) -> None:
    await world.activity()


async def _timer_is_scheduled(world: World) -> None:
    await world.timer()


async def _deadline_is_set(world: World) -> None:
    await world.activity(timeout_at=world.now + MINUTE)


async def _run_closes(world: World) -> None:
    await world.do(advance(seen=(await world.run()).head, status="completed"))


HAPPENINGS: list[tuple[Topic, Callable[[World], Awaitable[None]]]] = [
    ("runs", _run_becomes_ready),
    ("activities", _activity_is_scheduled),
    ("timers", _timer_is_scheduled),
    ("timers", _deadline_is_set),
    ("closed", _run_closes),
]
happenings = pytest.mark.parametrize(
    ("topic", "happen"), HAPPENINGS, ids=[f"{topic}, {what.__name__.strip('_')}" for topic, what in HAPPENINGS]
)


@pytest.mark.asyncio
class TestHints:
    @happenings
    async def test_a_wait_with_an_old_mark_returns_at_once(
        self, world: World, topic: Topic, happen: Callable[[World], Awaitable[None]]
    ) -> None:
        await world.sleeping()
        mark = world.store.seen(topic)
        await happen(world)
        async with asyncio.timeout(PATIENCE):
            await world.store.wait(topic, mark, NEVER)

    @happenings
    async def test_who_waits_is_woken(
        self, world: World, topic: Topic, happen: Callable[[World], Awaitable[None]]
    ) -> None:
        await world.sleeping()
        waiting = asyncio.create_task(world.store.wait(topic, world.store.seen(topic), NEVER))
        await asyncio.sleep(0)
        await happen(world)
        async with asyncio.timeout(PATIENCE):
            await waiting

    @happenings
    async def test_everyone_who_waits_is_woken(
        self, world: World, topic: Topic, happen: Callable[[World], Awaitable[None]]
    ) -> None:
        await world.sleeping()
        mark = world.store.seen(topic)
        waiting = [asyncio.create_task(world.store.wait(topic, mark, NEVER)) for _ in range(3)]
        await asyncio.sleep(0)
        await happen(world)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*waiting)

    @pytest.mark.parametrize("topic", ["runs", "activities", "timers", "closed"])
    async def test_a_clock_that_is_moved_wakes_everyone(self, world: World, topic: Topic) -> None:
        waiting = asyncio.create_task(world.store.wait(topic, world.store.seen(topic), NEVER))
        await asyncio.sleep(0)
        world.clock.advance(1)
        async with asyncio.timeout(PATIENCE):
            await waiting

    @pytest.mark.parametrize("topic", ["runs", "activities", "timers", "closed"])
    async def test_a_hint_by_hand_wakes_everyone(self, world: World, topic: Topic) -> None:
        waiting = asyncio.create_task(world.store.wait(topic, world.store.seen(topic), NEVER))
        await asyncio.sleep(0)
        world.store.hint(topic)
        async with asyncio.timeout(PATIENCE):
            await waiting

    async def test_a_wait_ends_by_itself(self, world: World) -> None:
        async with asyncio.timeout(PATIENCE):
            await world.store.wait("runs", world.store.seen("runs"), 0.0)

    async def test_a_wait_that_is_cancelled_leaves_the_others_alone(self, world: World) -> None:
        mark = world.store.seen("timers")
        waiting = [asyncio.create_task(world.store.wait("timers", mark, NEVER)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        await world.timer()
        async with asyncio.timeout(PATIENCE):
            await waiting[1]
        assert waiting[0].cancelled()

    async def test_a_sooner_timer_wakes_who_waits_for_a_later_one(self, world: World) -> None:
        await world.timer(1, after=MINUTE)
        mark = world.store.seen("timers")
        assert (await world.store.due_timers(10)).next_at == world.now + MINUTE
        await world.timer(2, after=MINUTE - 1)
        async with asyncio.timeout(PATIENCE):
            await world.store.wait("timers", mark, NEVER)

    async def test_a_lease_that_begins_wakes_who_waits_for_deadlines(self, world: World) -> None:
        mark = world.store.seen("timers")
        assert (await world.store.overdue(10)).next_at is None
        await world.register()
        async with asyncio.timeout(PATIENCE):
            await world.store.wait("timers", mark, NEVER)

    async def test_the_deadline_of_a_claimed_activity_wakes_who_waits_for_deadlines(self, world: World) -> None:
        await world.register()
        await world.activity()
        await world.store.overdue(10)
        mark = world.store.seen("timers")
        assert len(await world.claim_activities()) == 1
        async with asyncio.timeout(PATIENCE):
            await world.store.wait("timers", mark, NEVER)
