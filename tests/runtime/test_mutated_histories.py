"""A command that is deleted, doubled, swapped or changed in a history is always noticed by the code that made it."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from derecho import Context, History, NondeterminismError, Signal, activity, replay, workflow
from tests.runtime.conftest import DriveOf
from tests.support.drive import Drive

go = Signal("go", int)


@activity
async def charge(cents: int) -> str:
    return "receipt"


@activity
async def ship(receipt: str) -> None: ...


async def label() -> str:
    return "label"


@workflow
async def order(ctx: Context) -> int:
    """One of each command."""
    first, second = charge.execute(ctx, 1), ship.execute(ctx, "x")
    await first
    second.cancel()
    ctx.side_effect(lambda: 1)
    ctx.side_effect(lambda: 2)
    timer = ctx.new_timer(60)
    ctx.new_timer(7_200)
    await ctx.step("label", label)
    timer.cancel()
    return await ctx.signals(go).receive() + ctx.patched("v2")


def recorded(drive: DriveOf) -> Drive:
    run = drive(order)
    run.begin()
    run.task(run.completed("charge", "receipt"))
    run.task(run.completed("label", "label"))
    run.task(run.signal(go, 1))
    assert run.result == 2
    return run


Events = list[dict[str, Any]]
COMMANDS = {
    "activity_scheduled",
    "activity_cancel_requested",
    "side_effect_recorded",
    "timer_scheduled",
    "step_scheduled",
    "timer_cancelled",
    "workflow_completed",
}
OTHER = {"name": "stranger", "activity": 99, "timer": 99, "duration": 86_400_000_000}


def mutations(events: Events) -> Iterator[tuple[str, Events]]:
    """Every way to spoil one command of a workflow task."""
    for place, event in enumerate(events):
        if event["type"] not in COMMANDS:
            continue
        before, behind = events[:place], events[place + 1 :]
        yield f"{event['type']} deleted", [*before, *behind]
        yield f"{event['type']} doubled", [*before, event, event, *behind]
        for field, value in OTHER.items():
            if field in event:
                yield f"{event['type']} with another {field}", [*before, {**event, field: value}, *behind]
        if behind and identity(behind[0]) != identity(event):
            yield f"{event['type']} swapped", [*before, behind[0], event, *behind[1:]]


def identity(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["type"], *(event.get(field) for field in OTHER)


def test_every_mutation_is_caught_and_the_original_is_not(drive: DriveOf) -> None:
    history = recorded(drive).history()
    replay(order, history)
    kinds = {event["type"] for task in history.tasks for event in task.events}
    assert kinds >= COMMANDS
    tried, missed = 0, []
    for number, task in enumerate(history.tasks):
        for name, events in mutations(task.events):
            tasks = [*history.tasks[:number], replace(task, events=events), *history.tasks[number + 1 :]]
            tried += 1
            try:
                replay(order, History("order-1", "run-1", "order", tasks))
                missed.append(f"{name} in task {task.task}")
            except NondeterminismError:
                continue
    assert missed == []
    assert tried >= 30


def test_a_fact_cut_off_at_the_end_is_no_mismatch_but_a_run_under_way(drive: DriveOf) -> None:
    history = recorded(drive).history()
    for tasks in range(len(history.tasks)):
        replay(order, History("order-1", "run-1", "order", history.tasks[:tasks]))


@pytest.mark.parametrize("lost", [1, 2])
def test_a_whole_task_cut_out_is_caught(drive: DriveOf, lost: int) -> None:
    tasks = recorded(drive).history().tasks
    with pytest.raises(NondeterminismError):
        replay(order, History("order-1", "run-1", "order", [*tasks[:lost], *tasks[lost + 1 :]]))
