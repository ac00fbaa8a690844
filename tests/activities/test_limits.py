"""Large values: a clear error at once, no retry, nothing wedged."""

import pytest

import derecho
from derecho import ActivityFailed, PayloadError, Store
from tests.activities.kit import Probe, calling, engine, failure_of, probe

MIB = 2**20


@derecho.activity
async def large(size: int) -> str:
    probe().enter()
    return "x" * size


async def test_a_result_of_3_mib_works(store: Store) -> None:
    async with engine(store, caller := calling(large.bind(3 * MIB)), large) as running:
        assert len(await running.client.run(caller.bind())) == 3 * MIB


async def test_a_result_of_100_mib_is_refused_once_with_its_size_and_the_remedy(store: Store) -> None:
    seen = Probe()
    async with engine(store, caller := calling(large.bind(100 * MIB)), large, probe=seen) as running:
        error = await failure_of(await running.client.start(caller.bind()))
    assert isinstance(error, PayloadError)
    assert "the result of activity 'large' has 104,857,602 bytes, more than the limit of 4,194,304" in str(error)
    assert "raise the engine's payload limit" in str(error)
    assert isinstance(error.__cause__, ActivityFailed)
    assert len(seen.attempts) == 1


async def test_the_limit_can_be_raised_and_lowered(store: Store) -> None:
    caller = calling(large.bind(5 * MIB))
    async with engine(store, caller, large, payload_limit=8 * MIB) as running:
        assert len(await running.client.run(caller.bind())) == 5 * MIB
    caller = calling(large.bind(2_000))
    async with engine(store, caller, large, payload_limit=1_000) as running:
        assert isinstance(await failure_of(await running.client.start(caller.bind())), PayloadError)


async def test_large_progress_is_refused_at_the_heartbeat(store: Store) -> None:
    @derecho.activity
    async def report() -> str:
        with pytest.raises(PayloadError, match="more than the limit"):
            derecho.heartbeat("x" * 5 * MIB)
        return "refused"

    async with engine(store, caller := calling(report.bind()), report) as running:
        assert await running.client.run(caller.bind()) == "refused"
