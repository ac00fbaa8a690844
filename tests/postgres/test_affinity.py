"""A run's tasks go to the engine that holds it warm, as long as that engine lives."""

from derecho import PostgresStore
from derecho.clock import SECOND
from derecho.journal.changes import BlockRun, Deliver, RetireWorker
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import MINUTE, OTHER_WORKER, WORKER, World, advance, message


async def warm_at_worker(url: str, *, affinity: bool = True) -> World:
    """A run that `WORKER` holds warm and that has just got a message; both workers live for a minute."""
    clock = VirtualClock()
    world = World(PostgresStore(url, clock=clock, worker_affinity=affinity), clock)
    await world.register(WORKER, OTHER_WORKER)
    await world.start()
    (taken,) = await world.claim()
    await world.do(advance(claim=taken.run.claim, consume_to=1))
    await world.do(Deliver(message(), run_id="run-1"))
    return world


async def test_another_engine_leaves_it_to_the_one_that_holds_it_warm(empty_schema_url: str) -> None:
    world = await warm_at_worker(empty_schema_url)
    assert await world.claim(worker=OTHER_WORKER) == []
    assert len(await world.claim(worker=WORKER)) == 1
    await world.store.close()


async def test_when_that_engine_does_not_come_to_it_others_help_out(empty_schema_url: str) -> None:
    world = await warm_at_worker(empty_schema_url)
    world.clock.advance(2 * SECOND)
    assert len(await world.claim(worker=OTHER_WORKER)) == 1
    await world.store.close()


async def test_it_is_free_when_the_lease_of_that_engine_has_run_out(empty_schema_url: str) -> None:
    world = await warm_at_worker(empty_schema_url)
    await world.register(OTHER_WORKER, lease=2 * MINUTE)
    world.clock.advance(MINUTE - 1)
    await world.do(Deliver(message("again"), run_id="run-1"))
    world.clock.advance(1)
    assert len(await world.claim(worker=OTHER_WORKER)) == 1
    await world.store.close()


async def test_it_is_free_at_once_when_that_engine_leaves(empty_schema_url: str) -> None:
    world = await warm_at_worker(empty_schema_url)
    await world.do(RetireWorker(WORKER))
    assert len(await world.claim(worker=OTHER_WORKER)) == 1
    await world.store.close()


async def test_it_is_free_when_that_engine_cannot_go_on(empty_schema_url: str) -> None:
    world = await warm_at_worker(empty_schema_url)
    (taken,) = await world.claim(worker=WORKER)
    await world.do(BlockRun("run-1", taken.run.head, taken.run.claim, "too old", world.now))
    assert len(await world.claim(worker=OTHER_WORKER)) == 1
    await world.store.close()


async def test_without_affinity_whoever_comes_first_takes_it(empty_schema_url: str) -> None:
    world = await warm_at_worker(empty_schema_url, affinity=False)
    assert len(await world.claim(worker=OTHER_WORKER)) == 1
    await world.store.close()
