"""An activity is tested without an engine: its context is made by hand and records its heartbeats."""

import asyncio

import pytest

import derecho
from derecho.testing import activity_context


class Shop:
    """A resource."""


@derecho.activity
async def copy(goal: int) -> str:
    act = derecho.current_activity()
    act.resource(Shop)
    for count in range((act.last_heartbeat(int) or 0) + 1, goal + 1):
        derecho.heartbeat(count)
        if act.cancelled():
            return f"stopped: {act.cancel_reason}"
    return act.idempotency_key


@derecho.activity
def count_in_thread() -> None:
    derecho.heartbeat({"half": True})


async def test_heartbeats_are_recorded_and_those_of_the_attempt_before_are_found() -> None:
    with activity_context(attempt=2, last_heartbeat=2, resources={Shop: Shop()}) as act:
        assert await copy(4) == "run-1:1"
    assert (act.heartbeats, act.attempt) == ([3, 4], 2)


async def test_a_cancelled_attempt_sees_its_reason() -> None:
    with activity_context(resources={Shop: Shop()}) as act:
        act.cancel("timeout")
        assert await copy(4) == "stopped: timeout"


async def test_a_thread_has_the_context_too() -> None:
    with activity_context() as act:
        await asyncio.to_thread(count_in_thread)
    assert act.heartbeats == [{"half": True}]


def test_progress_that_cannot_be_recorded_is_refused_as_in_an_engine() -> None:
    with activity_context(), pytest.raises(derecho.PayloadError):
        derecho.heartbeat(object())


def test_outside_of_the_block_there_is_no_activity() -> None:
    with activity_context():
        pass
    with pytest.raises(derecho.DerechoError, match="outside an activity"):
        derecho.current_activity()
