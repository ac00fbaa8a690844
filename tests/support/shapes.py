"""Workflows whose clean-up code would act if it could: each waits for a signal, and is taken out of memory meanwhile.

All clean-up code calls `noted`, which checks that it runs in its own run and nowhere else.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from derecho import Context, Signal, activity

go = Signal("go", int)

foreign: list[str] = []
"""Clean-up code that ran on another thread, outside any run, or inside another run."""
tidied: list[str] = []
"""All clean-up code that ran."""
thread: list[threading.Thread] = [threading.main_thread()]
"""Where workflow code runs."""


@activity
async def act(what: str) -> str:
    return what


def noted(ctx: Context, what: str) -> str:
    tidied.append(what)
    if threading.current_thread() is not thread[0]:
        foreign.append(f"{what} on {threading.current_thread().name}")
    elif asyncio._get_running_loop() is not ctx._execution.loop:
        foreign.append(f"{what} inside {asyncio._get_running_loop()}")
    return what


async def awaits_in_finally(ctx: Context) -> str:
    try:
        await ctx.signals(go).receive()
    finally:
        await act.execute(ctx, noted(ctx, "finally"))
        await ctx.sleep(0)
    return "done"


async def catches_everything_in_a_loop(ctx: Context) -> str:
    for _ in range(1_000):
        try:
            await ctx.signals(go).receive()
            break
        except BaseException:  # this is the point
            act.execute(ctx, noted(ctx, "caught"))
    await act.execute(ctx, "after")
    return "done"


async def passes_over_everything(ctx: Context) -> str:
    for _ in range(30):
        try:
            await ctx.signals(go).receive()
            break
        except BaseException:  # and this
            noted(ctx, "passed over")
    return await act.execute(ctx, "after")


async def suppresses_everything(ctx: Context) -> str:
    with contextlib.suppress(BaseException):
        await ctx.signals(go).receive()
    await act.execute(ctx, noted(ctx, "suppressed"))
    return "done"


async def uses_async_generators(ctx: Context) -> str:
    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield await ctx.signals(go).receive()
        finally:
            await act.execute(ctx, noted(ctx, "generator"))
            await act.execute(ctx, noted(ctx, "generator again"))

    first = numbers()
    async for _ in first:
        break
    async for _ in numbers():
        break
    await first.aclose()  # type: ignore[attr-defined]  # it is an async generator
    return "done"


async def has_a_finalizer(ctx: Context) -> str:
    class Held:
        def __del__(self) -> None:
            with contextlib.suppress(BaseException):
                act.execute(ctx, noted(ctx, "__del__"))

    held = Held()
    await ctx.signals(go).receive()
    await act.execute(ctx, f"after {held is None}")
    return "done"


async def is_part_of_a_cycle(ctx: Context) -> str:
    cycle: list[Any] = []

    async def waits(ctx: Context) -> None:
        mine = cycle
        try:
            await ctx.signals(go).receive()
        finally:
            await act.execute(ctx, noted(ctx, f"in a cycle of {len(mine)}"))

    fiber = ctx.go(waits)
    cycle.append([cycle, fiber])
    await fiber
    return "done"


async def manages_contexts(ctx: Context) -> str:
    @contextlib.contextmanager
    def managed() -> Iterator[None]:
        try:
            yield
        finally:
            act.execute(ctx, noted(ctx, "context manager"))

    @contextlib.asynccontextmanager
    async def managed_too() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await act.execute(ctx, noted(ctx, "async context manager"))

    with managed():
        async with managed_too(), contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(ctx.sleep, 60)
            await ctx.signals(go).receive()
    await act.execute(ctx, "after")
    return "done"


async def holds_a_shield(ctx: Context) -> str:
    async with ctx.shield(60), ctx.saga() as saga:
        saga.compensate(act.bind("compensation"))
        try:
            await asyncio.shield(ctx.signals(go).receive_future())
        finally:
            noted(ctx, "shielded")
    await act.execute(ctx, "after")
    return "done"


async def groups_fibers(ctx: Context) -> str:
    async def part(n: int) -> None:
        try:
            await ctx.signals(go).receive() if n == 0 else await ctx.sleep(3600)
        finally:
            act.execute(ctx, noted(ctx, f"part {n}"))

    async with asyncio.TaskGroup() as group:
        fibers = [group.create_task(part(n)) for n in range(3)]
        await fibers[0]
        for fiber in fibers[1:]:
            fiber.cancel()
    await act.execute(ctx, "after")
    return "done"


SHAPES: list[Callable[[Context], Awaitable[str]]] = [
    awaits_in_finally,
    catches_everything_in_a_loop,
    passes_over_everything,
    suppresses_everything,
    uses_async_generators,
    has_a_finalizer,
    is_part_of_a_cycle,
    manages_contexts,
    holds_a_shield,
    groups_fibers,
]
