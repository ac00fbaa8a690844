"""The pytest plugin: the fixture `derecho_env`, an `Environment` of the test's own.

It works whoever runs async tests (pytest-asyncio, anyio, or nobody: then they run here), in tests that call
`asyncio.run` themselves, and under pytest-xdist: nothing is shared between tests. The environment is closed on the
event loop of the test, when the test has ended, and what it was not told yet fails it.
"""

import asyncio
import functools
import inspect
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from derecho.testing.environment import Environment

_NAME = "derecho_env"


@pytest.fixture
def derecho_env() -> "Iterator[Environment]":
    """The real engine on a virtual clock, with a MemoryStore."""
    from derecho.testing.environment import Environment

    env = Environment()
    yield env
    env.close_from_outside()


def _used_by(item: pytest.Item) -> "Environment | None":
    env: Environment | None = getattr(item, "funcargs", {}).get(_NAME)
    return env


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Close the environment of an async test inside the test's own event loop."""
    env = _used_by(item)
    if env is None or not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
        return (yield)
    test = item.obj

    @functools.wraps(test)
    async def closing(*args: Any, **kwargs: Any) -> Any:
        async with env:
            return await test(*args, **kwargs)

    item.obj = closing
    try:
        return (yield)
    finally:
        item.obj = test


@pytest.hookimpl
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run an async test that has an environment, when no other plugin did."""
    if _used_by(pyfuncitem) is None or not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted if name in pyfuncitem.funcargs}))
    return True
