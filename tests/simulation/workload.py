"""Workflows whose results say whether everything happened once, and random programs beside them."""

import asyncio
import random
from typing import Any, Protocol

import derecho
from derecho import (
    ActivityDefinition,
    Context,
    RetryPolicy,
    Signal,
    WorkflowAlreadyRunning,
    WorkflowDefinition,
    WorkflowNotFound,
    current_activity,
)
from tests.properties import programs
from tests.properties.machine import run_program
from tests.properties.machine import work as program_work
from tests.properties.programs import Node, walk

LETTER = Signal("letter", list[Any])
STOP: list[Any] = ["stop", 0]
PATIENT = RetryPolicy(initial_interval=0.2, max_interval=2.0)


class World(Protocol):
    """What the code below does outside of Derecho."""

    def begin(self, activity: Any) -> None: ...

    def step(self, run_id: str, name: str) -> None: ...

    def mark(self, name: str) -> None: ...


class Outside:
    world: World


@derecho.activity(start_to_close=5.0, retry=PATIENT)
async def effect(name: str, plan: list[str]) -> str:
    """Does in each attempt what `plan` says: "fail", "hang", or anything else to end well."""
    activity = current_activity()
    Outside.world.begin(activity)
    what = plan[activity.attempt - 1] if activity.attempt <= len(plan) else "well"
    if what == "fail":
        raise OSError("planned")
    await asyncio.sleep(1_000 if what == "hang" else 0.1 * len(what))
    return name.upper()


@derecho.activity(heartbeat_timeout=2.0, retry=PATIENT)
async def pulse(name: str, beats: int) -> str:
    """Counts, reports, and stops to report in its first attempt."""
    activity = current_activity()
    Outside.world.begin(activity)
    count = activity.last_heartbeat(int) or 0
    if count:
        Outside.world.mark("a progress of an attempt before came back")
    while count < beats:
        count += 1
        activity.heartbeat(count)
        await asyncio.sleep(1_000 if count == 3 and activity.attempt == 1 else 0.7)
    return f"{name}:{count}"


@derecho.workflow
async def leaf(ctx: Context, name: str, plan: list[str]) -> str:
    await ctx.sleep(0.4)
    return await effect.execute(ctx, f"{name}/leaf", plan)


@derecho.workflow
async def order(ctx: Context, name: str, plan: list[str]) -> list[str]:
    seen = [await effect.execute(ctx, f"{name}/a", plan)]
    seen += await asyncio.gather(*(effect.execute(ctx, f"{name}/{n}", plan[n:]) for n in range(2)))
    await ctx.sleep(1.5)

    async def note() -> str:
        Outside.world.step(ctx.info.run_id, "note")
        await asyncio.sleep(0.6)
        return "noted"

    seen.append(await ctx.step("note", note))
    seen.append(await ctx.child(leaf.bind(name, plan), id=f"{name}/leaf"))
    if len(plan) > 1:
        seen.append(await pulse.execute(ctx, name, 4))
    return seen


def expected(name: str, plan: list[str]) -> list[str]:
    seen = [f"{name}/{part}".upper() for part in ("a", "0", "1")] + ["noted", f"{name}/leaf".upper()]
    return [*seen, f"{name}:4"] if len(plan) > 1 else seen


@derecho.workflow
async def mailbox(ctx: Context, got: list[list[Any]]) -> list[list[Any]]:
    """Keeps each letter; continues as new after every three of them, until it is told to stop."""
    letters = ctx.signals(LETTER)
    for _ in range(3):
        letter = await letters.receive()
        if letter == STOP:
            return got
        got.append(letter)
    raise ctx.continue_as_new(mailbox.bind(got))


@derecho.workflow
async def courier(ctx: Context, name: str, targets: list[str]) -> list[int]:
    """Sends a letter to each target; gives the numbers of those that were delivered."""
    delivered = []
    for number, target in enumerate(targets):
        try:
            await ctx.signal(target, LETTER, [name, number])
        except WorkflowNotFound:
            continue
        delivered.append(number)
        await ctx.sleep(0.3)
    return delivered


@derecho.workflow
async def family(ctx: Context, name: str, taken: str) -> list[str]:
    """Closes while its children are open; one of them was never its own."""
    ctx.child(order.bind(f"{name}/kid", []), id=f"{name}/kid", close_policy="terminate")
    ctx.child(careful.bind(f"{name}/ward"), id=f"{name}/ward", close_policy="cancel")
    ctx.child(leaf.bind(f"{name}/free", []), id=f"{name}/free", close_policy="abandon")
    try:
        await ctx.child(leaf.bind("x", []), id=taken)
    except WorkflowAlreadyRunning:
        return ["refused"]
    return ["taken"]


@derecho.workflow
async def careful(ctx: Context, name: str) -> str:
    """Cleans up when it is cancelled."""
    try:
        await ctx.sleep(20)
    finally:
        await effect.execute(ctx, f"{name}/clean", [])
    return "slept"


WORKFLOWS: list[WorkflowDefinition] = [order, leaf, mailbox, courier, family, careful, run_program]
ACTIVITIES: list[ActivityDefinition] = [effect, pulse, program_work]


def random_plan(dice: random.Random) -> list[str]:
    return [dice.choice(("fail", "hang", "well", "well", "well")) for _ in range(dice.randint(0, 3))]


def random_program(dice: random.Random) -> Node:
    """As `programs.programs()` makes them, from other dice."""
    runs = [{"op": "seq", "parts": [_node(dice, 2) for _ in range(dice.randint(1, 3))], "flag": False}]
    if dice.random() < 0.3:
        runs.append({"op": "seq", "parts": [_node(dice, 1)], "flag": False})
    program = {"runs": runs, "outside": []}
    for number, node in enumerate(walk(program), 1):
        node["id"] = number
    return program


def _node(dice: random.Random, depth: int) -> Node:
    kind = dice.choice(("slow", "slow", "leaf", "parts", "body", "body", "count")) if depth else "slow"
    odds = dice.randint(0, 9)
    if kind == "slow":
        return programs._slow(dice.choice(programs._SLOW), dice.randint(0, 3), odds)
    if kind == "leaf":
        return programs._leaf(dice.choice(programs._QUICK))
    if kind == "parts":
        parts = [_node(dice, depth - 1) for _ in range(dice.randint(2, 3))]
        return programs._parts(dice.choice(programs._PARTS), parts, dice.random() < 0.5)
    if kind == "body":
        mode = dice.randint(0, 2)
        return programs._body(dice.choice(programs._BODY), _node(dice, depth - 1), _node(dice, depth - 1), mode)
    return programs._count(dice.choice(programs._COUNTS), dice.randint(1, 3), dice.randint(0, 3), odds)
