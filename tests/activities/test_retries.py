"""Retries: by class and predicate, with jitter, stopped or timed by the activity itself. (G19, G22, R07, R13, R14)"""

import asyncio
import sys
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import derecho
from derecho import ActivityFailed, NonRetryable, RetryAfter, RetryPolicy, Store
from derecho.clock import SECOND
from derecho.journal.policies import backoff
from derecho.stores.sqlite import SQLiteStore
from derecho.testing.clock import VirtualClock
from tests.activities.kit import Probe, calling, engine, failure_of, probe, quiet
from tests.support.world import eventually
from tests.support.wrapped import wrapped


class Declined(Exception):
    """The author's own."""


class Hopeless(Declined):
    """A kind of it."""


@derecho.activity
async def fail(error: str, good: int) -> int:
    """Raises an error until attempt number `good`."""
    attempt = probe().enter().attempt
    if attempt >= good:
        return attempt
    match error:
        case "declined":
            raise Declined("no")
        case "hopeless":
            raise Hopeless("never")
        case "final":
            raise NonRetryable("stop") from Declined("no")
        case "later":
            raise RetryAfter(30) from Declined("busy")
        case "exit":
            sys.exit(3)
        case _:
            raise ValueError(error)


NOW: dict[str, Any] = {"initial_interval": 0}


@pytest.mark.parametrize(
    ("error", "policy", "attempts"),
    [
        ("declined", RetryPolicy(**NOW, max_attempts=3), 3),
        ("declined", RetryPolicy(**NOW, retry_on=(ValueError,)), 1),
        ("hopeless", RetryPolicy(**NOW, max_attempts=2, retry_on=(Declined,)), 2),
        ("hopeless", RetryPolicy(**NOW, give_up_on=(Hopeless,)), 1),
        ("hopeless", RetryPolicy(**NOW, give_up_on=(Declined,)), 1),
        ("final", RetryPolicy(**NOW), 1),
        ("exit", RetryPolicy(**NOW, max_attempts=2), 2),
        ("declined", RetryPolicy.none(), 1),
    ],
)
async def test_the_policy_decides_by_class_and_number(
    store: Store, error: str, policy: RetryPolicy, attempts: int
) -> None:
    seen = Probe()
    async with engine(store, caller := calling(fail.bind(error, 99), retry=policy), fail, probe=seen) as running:
        raised = await failure_of(await running.client.start(caller.bind()))
    assert [act.attempt for act in seen.attempts] == list(range(1, attempts + 1))
    outer = raised if isinstance(raised, ActivityFailed) else raised.__cause__
    assert isinstance(outer, ActivityFailed)
    assert outer.attempts == attempts


async def test_a_predicate_of_the_definition_decides_what_the_classes_would_retry(store: Store) -> None:
    @derecho.activity(retry=RetryPolicy(**NOW, retry_if=lambda error: "again" in str(error)))
    async def picky() -> None:
        raise ValueError("again" if probe().enter().attempt < 3 else "enough")

    seen = Probe()
    async with engine(store, caller := calling(picky.bind()), picky, probe=seen) as running:
        assert str(await failure_of(await running.client.start(caller.bind()))) == "enough"
    assert len(seen.attempts) == 3


async def test_the_engines_policy_serves_activities_that_name_none(store: Store) -> None:
    seen = Probe()
    policy = RetryPolicy(**NOW, retry_if=lambda _: len(seen.attempts) < 4)
    caller = calling(fail.bind("declined", 99))
    async with engine(store, caller, fail, probe=seen, default_retry_policy=policy) as running:
        assert isinstance(await failure_of(await running.client.start(caller.bind())), Declined)
    assert len(seen.attempts) == 4


def test_a_predicate_for_one_call_is_refused_because_it_is_code() -> None:
    with pytest.raises(derecho.DefinitionError, match="activity's definition"):
        _ = RetryPolicy(retry_if=lambda _: True).rule


async def test_retry_after_replaces_the_interval_and_is_not_early(store: Store, clock: VirtualClock) -> None:
    seen = Probe()
    caller = calling(fail.bind("later", 2), retry=RetryPolicy(**NOW, retry_on=(ValueError,)))
    async with engine(store, caller, fail, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        clock.advance(30 * SECOND - 1)
        await quiet()
        assert len(seen.attempts) == 1, "early"

        async def waits() -> Any:
            return [row for row in (await store.pending(handle.run_id)).activities if row.attempt == 2]

        await eventually(waits)
        clock.advance(SECOND)
        assert await handle.result(timeout=10) == 2


async def test_the_last_retry_after_shows_its_cause(store: Store) -> None:
    caller = calling(fail.bind("later", 9), retry=RetryPolicy(max_attempts=1))
    async with engine(store, caller, fail) as running:
        error = await failure_of(await running.client.start(caller.bind()))
    assert isinstance(error, Declined)


async def test_an_idle_engine_wakes_for_a_retry(store: Store, clock: VirtualClock) -> None:
    """R07: nobody sends a wake-up at the instant of a retry."""
    seen = Probe()
    caller = calling(fail.bind("declined", 2), retry=RetryPolicy(initial_interval=50, jitter=0))
    async with engine(store, caller, fail, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        await quiet()
        clock.advance(50 * SECOND)
        assert await handle.result(timeout=10) == 2


async def test_an_idle_engine_wakes_for_a_retry_on_the_machines_clock(database: SQLiteStore) -> None:
    """Nothing but the due instant itself: no other work, no clock that is moved."""
    caller = calling(fail.bind("declined", 3), retry=RetryPolicy(initial_interval=0.05, jitter=0))
    running = engine(database, caller, fail)
    running.poll_interval = 1e4
    async with running:
        assert await (await running.client.start(caller.bind())).result(timeout=10) == 3


async def test_of_retries_that_are_due_one_after_another_none_waits_for_a_look(database: SQLiteStore) -> None:
    """A claim that takes one does not know of the next."""

    @derecho.activity
    async def later(number: int) -> int:
        if derecho.current_activity().attempt == 1:
            raise RetryAfter(0.05 + 0.05 * number)
        return number

    @derecho.workflow
    async def all_of_them(ctx: derecho.Context) -> int:
        return sum(await asyncio.gather(*(later.execute(ctx, number) for number in range(8))))

    looks = 0

    async def claim_activities(original: Any, *args: Any) -> Any:
        nonlocal looks
        looks += 1
        taken = await original(*args)
        await asyncio.sleep(0.02)  # meanwhile the next one becomes due
        return taken

    running = engine(wrapped(database, claim_activities=claim_activities), all_of_them, later)
    running.poll_interval = 1e4
    with mock.patch("derecho.engine.engine._SOON", 1e4):
        async with running:
            assert await (await running.client.start(all_of_them.bind())).result(timeout=20) == 28
    assert looks < 100, "and it does not look all the time either"


async def test_an_error_keeps_its_class_message_notes_and_traceback(store: Store) -> None:
    @derecho.activity(retry=RetryPolicy.none())
    async def noted() -> None:
        error = Declined("no", 51)
        error.add_note("the card of Ann")
        raise error from KeyError("card")

    @derecho.workflow
    async def catches(ctx: derecho.Context) -> list[str]:
        try:
            await noted.execute(ctx)
        except Declined as exc:
            outer = exc.__cause__
            assert isinstance(outer, ActivityFailed)
            return [*map(str, exc.args), *exc.__notes__, outer.activity, repr(outer.__cause__), outer.remote_traceback]
        return []

    async with engine(store, catches, noted) as running:
        *told, trace = await running.client.run(catches.bind())
    assert told == ["no", "51", "the card of Ann", "noted", "KeyError('card')"]
    assert "in noted" in trace


@given(
    initial=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    cap=st.floats(0, 1e9),
    attempt=st.integers(1, 10**6),
)
def test_backoff_is_total_bounded_and_never_decreases(initial: float, factor: float, cap: float, attempt: int) -> None:
    """G22 and R14: the Go original's went negative at attempt 35."""
    policy = RetryPolicy(initial_interval=initial, backoff_coefficient=factor, max_interval=cap, jitter=0)
    waits = [backoff(policy.stored, number, 0.5) for number in (attempt, attempt + 1)]
    assert 0 <= waits[0] <= waits[1] <= policy.stored.maximum


@given(share=st.floats(0, 1), draw=st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_share(share: float, draw: float) -> None:
    policy = RetryPolicy(initial_interval=10, max_interval=1000, jitter=share)
    wait = backoff(policy.stored, 1, draw) / SECOND
    assert 10 * (1 - share) - 1e-6 <= wait <= 10 * (1 + share)
