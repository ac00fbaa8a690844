"""A store with one method replaced: how tests make a real store slow, dead or forgetful."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from derecho import Store


def wrapped(store: Store, **methods: Callable[..., Awaitable[Any]]) -> Store:
    """`store`, but for these async methods; each is called with the original method first."""
    return cast(Store, _Wrapped(store, methods))


class _Wrapped:
    def __init__(self, store: Store, methods: dict[str, Callable[..., Awaitable[Any]]]) -> None:
        self._store = store
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._store, name)
        replacement = self._methods.get(name)
        if replacement is None:
            return original

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await replacement(original, *args, **kwargs)

        return call


class Gate:
    """Calls that come to a shut gate wait until it is opened: a machine that is paused, or cut off for a while."""

    def __init__(self) -> None:
        self.is_open = True
        self.waiting = 0

    async def __call__(self, original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        await self.passed()
        return await original(*args, **kwargs)

    async def passed(self) -> None:
        self.waiting += 1
        while not self.is_open:  # noqa: ASYNC110  (calls come from several event loops, which no Event can serve)
            await asyncio.sleep(0.001)
        self.waiting -= 1

    def before(self, store: Store) -> Store:
        """A store all of whose calls go through this gate."""
        names = ("commit", "claim_runs", "claim_activities", "due_timers", "overdue", "load")
        return wrapped(store, **dict.fromkeys(names, self))


class Weather:
    """Bad weather: calls fail with `error` while it lasts; `struck` counts them."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.bad = False
        self.struck = 0

    async def __call__(self, original: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        if self.bad:
            self.struck += 1
            raise self.error
        return await original(*args, **kwargs)
