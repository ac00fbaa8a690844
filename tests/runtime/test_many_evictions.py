"""Thousands of runs leave memory in the middle of what they do: nothing of theirs acts, then or later. (G32)

`DERECHO_EVICTIONS` is how many; 5,000 by default.
"""

import contextlib
import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from derecho import Context, Signal, WorkflowDefinition, workflow
from derecho.journal import events as ev
from tests.support.drive import Drive, names
from tests.support.shapes import SHAPES, act, foreign, go, noted, thread, tidied

EVICTIONS = int(os.environ.get("DERECHO_EVICTIONS", "5000"))
tick = Signal("tick", int)


@pytest.fixture(autouse=True)
def _nothing_noted() -> Iterator[None]:
    thread[:] = [threading.current_thread()]
    foreign.clear()
    tidied.clear()
    gc.collect()
    gc.freeze()  # what the tests before left is not looked through at each collection
    yield
    gc.unfreeze()
    foreign.clear()
    tidied.clear()


@workflow
async def neighbour(ctx: Context) -> None:
    """Another run. While its code runs, the garbage collector finds whatever was left behind."""
    while True:
        value = await ctx.signals(tick).receive()
        gc.collect()
        await act.execute(ctx, f"neighbour {value}")


class Neighbour:
    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.run = Drive(neighbour)
        self.run.begin()

    def works(self, n: int) -> None:
        """One round of it; what it asks for is its own."""
        if n % 50 == 0:  # its own history must not grow
            self.run.close()
            self.begin()
        commands = self.run.task(self.run.signal(tick, n))
        [command] = commands
        assert isinstance(command, ev.ActivityScheduled)
        assert command.input == (self.run.converter.encode(f"neighbour {n}", "it"),)
        event_id = len(self.run.events)
        self.run.task(ev.ActivityCompleted(event_id, command.input[0], self.run.at))


def brought_somewhere(flow: WorkflowDefinition, chance: random.Random) -> Drive | None:
    """A run that has met none, one or a few facts; None when it has ended."""
    run = Drive(flow)
    run.begin()
    for _ in range(chance.randrange(3)):
        open_activities = [
            number for number, event in enumerate(run.events, 1) if isinstance(event, ev.ActivityScheduled)
        ]
        ended = {event.activity for event in run.events if isinstance(event, ev.ActivityCompleted)}
        left = [number for number in open_activities if number not in ended]
        if run.is_over:
            break
        if left and chance.random() < 0.5:
            run.task(ev.ActivityCompleted(left[0], run.converter.encode("done", "it"), run.at))
        else:
            run.task(run.signal(go, 1))
    if run.is_over:
        run.close()
        return None
    return run


def evict(run: Drive) -> list[str]:
    """Take it out of memory; it must have asked for nothing meanwhile."""
    execution, before = run.execution, list(run.execution.commands)
    stuck = run.close()
    assert execution.commands == before, names(execution.commands)
    assert execution.outcome is None
    return stuck


def test_thousands_of_evictions_issue_no_command_and_run_nothing_elsewhere() -> None:
    flows = [workflow(shape.__name__)(shape) for shape in SHAPES]
    chance, beside = random.Random(7), Neighbour()
    evicted: Counter[str] = Counter()
    tried, objects = 0, 0
    while sum(evicted.values()) < EVICTIONS:
        flow = flows[tried % len(flows)]
        tried += 1
        run = brought_somewhere(flow, chance)
        if run is None:
            continue
        evicted[flow.name] += 1
        assert evict(run) == []
        del run
        if tried % 10 == 0:
            beside.works(tried)
        if tried == 1_000:
            objects = _live_objects()
    beside.run.close()
    grown = _live_objects() - objects
    print(f"{sum(evicted.values())} evictions: {dict(evicted)}; {len(tidied)} clean-ups ran, {grown} objects more")
    assert foreign == []
    assert len(tidied) >= EVICTIONS // 2
    assert min(evicted.values()) >= EVICTIONS // 20
    assert len(evicted) == len(SHAPES)
    assert grown <= max(0.05 * objects, 500), "memory grows"


def _live_objects() -> int:
    gc.collect()
    return len(gc.get_objects())


async def never(ctx: Context) -> None:
    while True:
        with contextlib.suppress(BaseException):
            await ctx.signals(go).receive()


async def never_in_its_generator(ctx: Context) -> None:
    async def deaf() -> None:
        while True:
            try:
                await ctx.sleep(60)
            except BaseException:
                noted(ctx, "deaf")

    await deaf()


async def never_in_a_fiber(ctx: Context) -> None:
    ctx.go(never)
    await ctx.signals(tick).receive()


@pytest.mark.parametrize("code", [never, never_in_its_generator, never_in_a_fiber], ids=lambda code: str(code.__name__))
def test_each_refusal_is_reported_with_its_line_and_issues_nothing(
    code: Callable[[Context], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    flow, beside = workflow(code.__name__)(code), Neighbour()
    refused = 0
    for n in range(20):
        run = Drive(flow)
        run.begin()
        stuck = evict(run)
        assert len(stuck) == 1
        assert "test_many_evictions.py:" in stuck[0]
        refused += 1
        del run
        beside.works(n)
    assert refused == 20
    assert caplog.text.count("refused to be taken down") == 20
    assert foreign == []
