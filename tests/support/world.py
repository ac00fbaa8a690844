"""What tests of the engine and the client share: stores on a clock that the test moves, engines, waiting for them."""

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

import pytest

from derecho import Engine, Store
from derecho.activity import ActivityDefinition
from derecho.workflow import WorkflowDefinition
from tests.support.audits import assert_sound
from tests.support.clocks import StandingClock
from tests.support.kinds import KINDS, new_store

T = TypeVar("T")

FOR_EVER = 1e6
"""A lease, in seconds, that outlives every jump of a test's clock."""


@pytest.fixture
def clock() -> StandingClock:
    """Time of the `store`."""
    return StandingClock()


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, clock: StandingClock) -> AsyncIterator[Store]:
    """An empty store of each kind, on `clock`."""
    store = new_store(request.param, request, clock)
    try:
        yield store
        if "unsound" not in request.keywords:
            await assert_sound(store)
    finally:
        await store.close()


def engine_of(store: Store, *definitions: WorkflowDefinition | ActivityDefinition, **options: Any) -> Engine:
    """An engine with these workflows and activities; its lease does not run out when the clock jumps."""
    options = {"lease": FOR_EVER, "shutdown_timeout": 0.05, **options}
    return Engine(
        store,
        workflows=[item for item in definitions if isinstance(item, WorkflowDefinition)],
        activities=[item for item in definitions if isinstance(item, ActivityDefinition)],
        **options,
    )


@contextmanager
def quick_hand_over() -> Iterator[None]:
    """Threads that spin give way after a tenth of the usual 5 ms: else each step of what is tested waits so long."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 10)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@overload
async def eventually(check: Callable[..., Awaitable[T | None]]) -> T: ...
@overload
async def eventually(check: Callable[..., T | None]) -> T: ...
async def eventually(check: Callable[..., Any]) -> Any:
    """What `check` gives as soon as it is true. Engines work on threads of their own, so a test can only look."""
    for _ in range(20_000):
        found = check()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.001)
    raise AssertionError(f"this never came true: {inspect.getsource(check).strip()}")
