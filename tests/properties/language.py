"""A small language of workflow programs, and the workflow that interprets it.

A program is a JSON value: `["name", argument, ...]`. The interpreter uses every construct that a workflow may use, and
writes what it saw into a trace, which is its result: two executions that differ anywhere give different traces.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import derecho
from derecho import Context, RetryPolicy, Selector, Signal

SIGNALS = {name: Signal(name, int) for name in ("red", "blue")}
Op = list[Any]


@derecho.activity(retry=RetryPolicy(initial_interval=0.001, max_attempts=2))
async def work(n: int) -> int:
    return n * 2


@derecho.activity
async def undo(n: int) -> None: ...


@derecho.workflow
async def leaf(ctx: Context, n: int) -> int:
    return n + await work.execute(ctx, n)


@derecho.workflow
async def program(ctx: Context, body: list[Any], seen: list[str]) -> list[str]:
    trace = list(seen)
    await run(ctx, body, trace)
    return trace


async def run(ctx: Context, op: Op, trace: list[str]) -> Any:
    """Interpret one operation; what it gives goes into the trace."""
    name, *args = op
    try:
        value = await OPERATIONS[name](ctx, trace, *args)
    except asyncio.CancelledError:
        trace.append(f"{name} cancelled")
        raise
    except Exception as exc:
        trace.append(f"{name} raised {type(exc).__name__}")
        raise
    trace.append(f"{name}={value}")
    return value


async def activity(ctx: Context, trace: list[str], n: int) -> int:
    return await work.execute(ctx, n)


async def caught(ctx: Context, trace: list[str], body: Op) -> Any:
    try:
        return await run(ctx, body, trace)
    except Exception as exc:
        return type(exc).__name__


async def sequence(ctx: Context, trace: list[str], *body: Op) -> int:
    for op in body:
        await run(ctx, op, trace)
    return len(body)


async def gather(ctx: Context, trace: list[str], *body: Op) -> int:
    results = await asyncio.gather(*(run(ctx, op, trace) for op in body), return_exceptions=True)
    return sum(isinstance(result, Exception) for result in results)


async def group(ctx: Context, trace: list[str], *body: Op) -> str:
    try:
        async with asyncio.TaskGroup() as tasks:
            for op in body:
                tasks.create_task(run(ctx, op, trace))
    except ExceptionGroup as errors:
        return ",".join(type(error).__name__ for error in errors.exceptions)
    return "all"


async def first_of(ctx: Context, trace: list[str], *body: Op) -> int:
    tasks = [asyncio.ensure_future(run(ctx, op, trace)) for op in body]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return len(done)


async def as_completed(ctx: Context, trace: list[str], *body: Op) -> int:
    errors = 0
    for future in asyncio.as_completed([run(ctx, op, trace) for op in body]):
        try:
            await future
        except Exception:
            errors += 1
    return errors


async def limited(ctx: Context, trace: list[str], seconds: float, body: Op) -> Any:
    try:
        async with asyncio.timeout(seconds):
            return await run(ctx, body, trace)
    except TimeoutError:
        return "late"


async def cleanup(ctx: Context, trace: list[str], body: Op, after: Op) -> Any:
    try:
        return await run(ctx, body, trace)
    finally:
        await run(ctx, after, trace)


async def select(ctx: Context, trace: list[str], signal: str, seconds: float) -> str:
    selector = (
        Selector[str]()
        .add(ctx.signals(SIGNALS[signal]).receive_future(), lambda value: f"signal {value}")
        .add(ctx.new_timer(seconds), lambda _: "timer")
        .add(work.execute(ctx, 7), lambda value: f"work {value}")
    )
    first = await selector.select(ctx)
    return first if not selector.has_pending() else f"{first}, then {await selector.select(ctx)}"


async def receive(ctx: Context, trace: list[str], signal: str) -> int:
    return await ctx.signals(SIGNALS[signal]).receive()


async def poll(ctx: Context, trace: list[str], signal: str) -> int | None:
    return ctx.signals(SIGNALS[signal]).try_receive()


async def fibers(ctx: Context, trace: list[str], *body: Op) -> bool:
    left = [0]

    async def fiber(ctx: Context, op: Op) -> None:
        try:
            await caught(ctx, trace, op)
        finally:
            left[0] += 1

    for op in body:
        ctx.go(fiber, op)
    return await ctx.wait_for(lambda: left[0] == len(body), timeout=50)


async def channel(ctx: Context, trace: list[str], capacity: int, n: int) -> list[int]:
    values = ctx.channel(int, capacity)

    async def producer(ctx: Context) -> None:
        for number in range(n):
            await values.send(number)
        values.close()

    ctx.go(producer)
    return [value async for value in values]


async def fan_out(ctx: Context, trace: list[str], n: int, limit: int) -> list[int]:
    return await ctx.map([work.bind(number) for number in range(n)], limit=limit)


async def child(ctx: Context, trace: list[str], n: int) -> int:
    return await ctx.child(leaf.bind(n))


async def dropped(ctx: Context, trace: list[str], n: int) -> str:
    future = work.execute(ctx, n)
    timer = ctx.new_timer(n + 1)
    await ctx.sleep(0.5)
    return f"{future.cancel()} {timer.cancel()}"


async def step(ctx: Context, trace: list[str], n: int) -> int:
    async def local(value: int) -> int:
        return value + 1

    return await ctx.step("local", local, n)


async def chance(ctx: Context, trace: list[str]) -> str:
    drawn = ctx.side_effect(lambda: 5)
    return f"{drawn} {ctx.random.randint(0, 9**9)} {ctx.uuid4()} {ctx.patched('new')}"


async def clock(ctx: Context, trace: list[str]) -> str:
    return f"{(ctx.now() - ctx.info.start_time).total_seconds()} {asyncio.get_running_loop().time()}"


async def saga(ctx: Context, trace: list[str], *body: Op) -> str:
    try:
        async with ctx.saga() as undoing:
            for number, op in enumerate(body):
                undoing.compensate(undo.bind(number))
                await run(ctx, op, trace)
    except Exception as exc:
        return f"undone after {type(exc).__name__}"
    return "done"


async def shielded(ctx: Context, trace: list[str], body: Op) -> Any:
    async with ctx.shield():
        return await run(ctx, body, trace)


async def queue(ctx: Context, trace: list[str], *body: Op) -> int:
    results: asyncio.Queue[int] = asyncio.Queue()
    room = asyncio.Semaphore(2)
    over = asyncio.Event()

    async def worker(op: Op) -> None:
        try:
            async with room:
                await caught(ctx, trace, op)
        finally:
            results.put_nowait(1)
            if results.qsize() == len(body):
                over.set()

    workers = [asyncio.ensure_future(worker(op)) for op in body]
    await over.wait()
    await asyncio.gather(*workers)
    return results.qsize()


async def again(ctx: Context, trace: list[str]) -> None:
    if len(trace) < 40:
        raise ctx.continue_as_new(program.bind(["clock"], trace))


async def sleep(ctx: Context, trace: list[str], seconds: float) -> str:
    await ctx.sleep(seconds)
    await asyncio.sleep(seconds)
    return "slept"


OPERATIONS: dict[str, Callable[..., Awaitable[Any]]] = {
    "activity": activity,
    "again": again,
    "as_completed": as_completed,
    "caught": caught,
    "chance": chance,
    "channel": channel,
    "child": child,
    "cleanup": cleanup,
    "clock": clock,
    "dropped": dropped,
    "fan_out": fan_out,
    "fibers": fibers,
    "first_of": first_of,
    "gather": gather,
    "group": group,
    "limited": limited,
    "poll": poll,
    "queue": queue,
    "receive": receive,
    "saga": saga,
    "select": select,
    "sequence": sequence,
    "shielded": shielded,
    "sleep": sleep,
    "step": step,
}
