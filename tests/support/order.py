"""A script: one workflow full of sets and races, driven by hand; prints its commands and its result."""

import asyncio
import gc
import random
import sys
from typing import Any

from derecho import Context, activity, workflow
from derecho.journal import events as ev
from derecho.runtime.matching import describe
from tests.support.drive import Drive


@activity
async def work(name: str) -> str:
    return name


@workflow
async def races(ctx: Context) -> list[str]:
    seen: list[str] = []

    async def part(name: str) -> str:
        try:
            return await work.execute(ctx, name)
        finally:
            seen.append(name)

    done, _ = await asyncio.wait([asyncio.ensure_future(part(f"wait-{n}")) for n in range(9)])
    seen.extend(f"done {fiber.result()}" for fiber in done)
    for each in asyncio.as_completed([work.execute(ctx, f"completed-{n}") for n in range(9)]):
        seen.append(await each)
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(9):
                group.create_task(part(f"group-{n}"))
            await ctx.sleep(1)
            raise ValueError("cancels the group")
    except* ValueError:
        seen.append("cancelled")
    names = {str(ctx.uuid4()) for _ in range(3)} | {f"{ctx.random.random()}"}
    return [*seen, *sorted(names)]


def record(noise: int) -> str:
    """Commands and result of one run; `noise` shifts what the heap looks like."""
    litter: list[Any] = [object() for _ in range(random.randrange(1000 * noise + 1))]
    if noise % 2:
        gc.set_threshold(1)
    drive = Drive(races)
    drive.begin()
    while drive.outcome is None:
        drive.task(*_facts(drive), after=1)
    del litter
    commands = [describe(event) for event in drive.events if isinstance(event, ev.Command)]
    return "\n".join([*commands, *drive.result])


def _facts(drive: Drive) -> list[ev.Fact]:
    """All that can happen: every open activity but those of the group ends, last one first; timers fire."""
    ended = {event.activity for event in drive.events if isinstance(event, ev.ActivityCompleted)}
    facts: list[ev.Fact] = []
    for number, event in reversed(list(enumerate(drive.events, 1))):
        if isinstance(event, ev.ActivityScheduled) and number not in ended and "group" not in str(event.input):
            facts.append(ev.ActivityCompleted(number, event.input[0], drive.at))
        elif isinstance(event, ev.TimerScheduled):
            facts.append(ev.TimerFired(number, drive.at))
    return facts


if __name__ == "__main__":
    print(record(int(sys.argv[1])))
