"""Workflows whose course depends on the order in which asyncio wakes things; run by hand, they print what they did.

`python -m tests.runtime.programs` does it in a process of its own, with a heap and a hash seed of its own.
"""

import asyncio
import random
from typing import Any

import anyio

from derecho import Context, activity, workflow
from derecho.journal import events as ev
from derecho.journal.wire import encode_events
from derecho.workflow import WorkflowDefinition
from tests.support.drive import Drive


@activity
async def work(name: str) -> str:
    return name


@activity
async def undo(name: str) -> str:
    return name


@workflow
async def gathering(ctx: Context) -> list[str]:
    """Results in order of the call, whatever the order of the facts."""
    return await asyncio.gather(*(work.execute(ctx, f"g{n}") for n in range(7)))


@workflow
async def waiting(ctx: Context) -> list[str]:
    """`asyncio.wait` gives sets; the order of their elements decides what is asked for next."""
    pending: set[asyncio.Future[str]] = {work.execute(ctx, f"w{n}") for n in range(9)}
    seen: list[str] = []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            seen.append(future.result())
            await undo.execute(ctx, future.result())
        for future in pending:
            seen.append("?" if not future.done() else "!")
    return seen


@workflow
async def completing(ctx: Context) -> list[str]:
    async def one(name: str) -> str:
        found = await work.execute(ctx, name)
        await undo.execute(ctx, found)
        return found

    return [await done for done in asyncio.as_completed([one(f"c{n}") for n in range(8)])]


@workflow
async def compensating(ctx: Context) -> list[str]:
    """A TaskGroup cancels its children when one fails; the order in which they clean up is the order of their undos."""
    order: list[str] = []

    async def one(name: str) -> None:
        try:
            await work.execute(ctx, name)
            if name == "t4":
                raise ValueError(name)
            await asyncio.Event().wait()
        finally:
            order.append(name)
            await undo.execute(ctx, name)

    try:
        async with asyncio.TaskGroup() as group:
            for n in range(9):
                group.create_task(one(f"t{n}"))
    except* ValueError:
        order.append("failed")
    return order


@workflow
async def queueing(ctx: Context) -> list[str]:
    queue: asyncio.Queue[str] = asyncio.Queue(maxsize=2)
    seen: list[str] = []

    async def produce(name: str) -> None:
        for n in range(3):
            await queue.put(await work.execute(ctx, f"{name}{n}"))

    async def consume(name: str) -> None:
        while True:
            item = await queue.get()
            seen.append(f"{name}:{item}")
            await undo.execute(ctx, item)
            queue.task_done()

    consumers = [asyncio.create_task(consume(name)) for name in "xyz"]
    await asyncio.gather(*(produce(name) for name in "abc"))
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    return seen


@workflow
async def synchronising(ctx: Context) -> list[str]:
    event, lock, semaphore = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2)
    condition, seen = asyncio.Condition(), list[str]()

    async def one(name: str) -> None:
        async with semaphore:
            await work.execute(ctx, name)
        await event.wait()
        async with lock:
            seen.append(name)
            await undo.execute(ctx, name)
        async with condition:
            condition.notify_all()

    fibers = [asyncio.create_task(one(f"s{n}")) for n in range(6)]
    await work.execute(ctx, "gate")
    event.set()
    async with condition:
        await condition.wait_for(lambda: len(seen) == 6)
    await asyncio.gather(*fibers)
    return seen


@workflow
async def timing_out(ctx: Context) -> list[str]:
    seen: list[str] = []

    async def one(name: str, limit: float) -> None:
        try:
            async with asyncio.timeout(limit):
                await work.execute(ctx, name)
                await ctx.wait_for(lambda: False)
        except TimeoutError:
            seen.append(f"{name} late")
        try:
            await asyncio.wait_for(ctx.wait_for(lambda: False), limit)
        except TimeoutError:
            seen.append(f"{name} late again")

    await asyncio.gather(*(one(f"l{n}", 60 - n) for n in range(5)), *(one(f"m{n}", 60) for n in range(5)))
    return seen


@workflow
async def with_anyio(ctx: Context) -> list[str]:
    """anyio runs on asyncio, so it runs here."""
    seen: list[str] = []

    async def one(name: str) -> None:
        with anyio.move_on_after(30):
            await work.execute(ctx, name)
            await anyio.sleep(60)
        seen.append(name)
        await undo.execute(ctx, name)

    async with anyio.create_task_group() as group:
        for n in range(5):
            group.start_soon(one, f"a{n}")
    return seen


PROGRAMS: list[WorkflowDefinition] = [
    gathering,
    waiting,
    completing,
    compensating,
    queueing,
    synchronising,
    timing_out,
    with_anyio,
]


def play(program: WorkflowDefinition, seed: int = 7) -> Drive:
    """Run a program to its end: everything it asks for happens, shuffled, up to three facts in a workflow task."""
    run, shuffle = Drive(program), random.Random(seed)
    run.begin()
    open_ids: dict[int, ev.CommandEvent] = {}
    looked_at = 0
    while not run.is_over:
        for event_id, event in enumerate(run.events[looked_at:], looked_at + 1):
            match event:
                case ev.ActivityScheduled() | ev.TimerScheduled():
                    open_ids[event_id] = event
                case ev.ActivityCancelRequested(activity=ended) | ev.TimerCancelled(timer=ended):
                    open_ids.pop(ended, None)
        looked_at = len(run.events)
        now = shuffle.sample(sorted(open_ids), min(len(open_ids), shuffle.randint(1, 3)))
        due = max((event.fire_at for i in now if isinstance(event := open_ids[i], ev.TimerScheduled)), default=run.at)
        after = max(0, due - run.at) / 1_000_000
        run.task(*(_fact(run, event_id, open_ids.pop(event_id)) for event_id in now), after=after)
    return run


def _fact(run: Drive, event_id: int, event: ev.CommandEvent) -> ev.Fact:
    if isinstance(event, ev.ActivityScheduled):
        return ev.ActivityCompleted(event_id, event.input[0], run.at)
    assert isinstance(event, ev.TimerScheduled)
    return ev.TimerFired(event_id, event.fire_at)


def story(program: WorkflowDefinition) -> str:
    """Everything that a program did, as one line of text."""
    run = play(program)
    try:
        return f"{program.name} {encode_events(run.events)}"
    finally:
        run.close()


def disturb_the_heap() -> list[Any]:
    """Objects at addresses that differ from process to process, kept so that later ones differ, too."""
    return [object() for _ in range(hash("heap") % 10_000)]


if __name__ == "__main__":
    noise = disturb_the_heap()
    for each in PROGRAMS:
        print(story(each))
