"""What tests of the engine and the client share: stores on a clock that stands still, and waiting for the engine."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from derecho import MemoryStore, Store
from derecho.stores.sqlite import SQLiteStore
from tests.support.clocks import StandingClock

T = TypeVar("T")


@pytest.fixture
def clock() -> StandingClock:
    """Time of the `store`."""
    return StandingClock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, clock: StandingClock, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each kind, on `clock`."""
    store: Store = MemoryStore(clock=clock)
    if request.param == "sqlite":
        store = SQLiteStore(tmp_path / "runs.db", clock=clock)
    yield store
    await store.close()


async def eventually(check: Callable[[], T | Awaitable[T]]) -> T:
    """What `check` gives as soon as it is true. Engines work on threads of their own, so a test can only look."""
    for _ in range(20_000):
        found = check()
        value: T = await found if inspect.isawaitable(found) else found
        if value:
            return value
        await asyncio.sleep(0.001)
    raise AssertionError(f"this never came true: {inspect.getsource(check).strip()}")
