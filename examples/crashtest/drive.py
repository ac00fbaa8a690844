"""The show itself: orders come in, a reviewer answers, workers are killed at random moments and started again.

Orders come in waves, one more than there are kills, so that every worker has fresh orders in flight when it dies.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crashtest.children import Child, Children
from crashtest.evidence import Kill
from crashtest.oracle import is_approved, needs_approval
from crashtest.orders import Entry
from crashtest.screen import Screen
from derecho import Client, DerechoError, Handle
from order import Outcome, approval, order_workflow
from shop.ledger import LedgerReader

BATCH, PAUSE = 4, 0.1
"""Orders come in a few at a time, with a pause of so many seconds between them."""

PATIENCE = 15.0
"""Seconds without a new outcome or effect after which the show is given up."""


@dataclass
class Show:
    """What has happened so far. `outcomes` holds an order's outcome, or the text of the error it ended with.

    `waves` is released once for every worker that starts.
    """

    entries: Sequence[Entry]
    kills_wanted: int
    dice: random.Random
    began_at: float = field(default_factory=time.time)
    handles: dict[str, Handle[Outcome]] = field(default_factory=dict)
    outcomes: dict[str, Outcome | str] = field(default_factory=dict)
    reviewed: dict[str, bool] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    worker: Child | None = None
    waves: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    @property
    def elapsed(self) -> float:
        return time.time() - self.began_at


class Stalled(Exception):
    """Nothing happens any more; the message says which orders are still open."""


async def run_show(
    show: Show, screen: Screen, client: Client, children: Children, worker: Sequence[str], ledger: Path
) -> None:
    """Until every order has ended; raises ChildFailed when a worker ends by itself, Stalled when nothing moves."""
    reader = LedgerReader(ledger)
    try:
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(review(show, reader)),
                tasks.create_task(run_workers(show, screen, children, worker, reader)),
                tasks.create_task(screen.follow(show, reader)),
                tasks.create_task(watch_progress(show, reader)),
            ]
            await send_orders(show, client)
            for task in beside:
                task.cancel()
    finally:
        reader.close()


async def send_orders(show: Show, client: Client) -> None:
    """Start a workflow for every order, wave by wave, and wait for all of them."""
    count, waves = len(show.entries), show.kills_wanted + 1
    async with asyncio.TaskGroup() as waiting:
        for wave in range(waves):
            await show.waves.acquire()
            orders = show.entries[count * wave // waves : count * (wave + 1) // waves]
            for batch in range(0, len(orders), BATCH):
                calls = [(entry.order.id, order_workflow.bind(entry.order)) for entry in orders[batch : batch + BATCH]]
                for handle in await client.start_many(calls):
                    show.handles[handle.id] = handle
                    waiting.create_task(take_outcome(show, handle))
                await asyncio.sleep(PAUSE)


async def take_outcome(show: Show, handle: Handle[Outcome]) -> None:
    try:
        show.outcomes[handle.id] = await handle.result()
    except DerechoError as error:
        show.outcomes[handle.id] = f"{type(error).__name__}: {error}"


async def review(show: Show, reader: LedgerReader) -> None:
    """Answer each large order some time after it has been paid, whether a worker is alive or not."""
    large = {entry.order.id: is_approved(entry.raw) for entry in show.entries if needs_approval(entry.raw)}
    answer_at: dict[str, float] = {}
    while True:
        for order_id in (reader.charged() & large.keys()) - answer_at.keys():
            answer_at[order_id] = show.elapsed + show.dice.uniform(0.1, 2.0)
        for order_id, at in answer_at.items():
            if order_id not in show.reviewed and at <= show.elapsed:
                await show.handles[order_id].signal(approval, large[order_id])
                show.reviewed[order_id] = large[order_id]
        await asyncio.sleep(0.05)


async def watch_progress(show: Show, reader: LedgerReader) -> None:
    """A slow machine may take its time; a show in which nothing moves is over."""
    seen, seen_at = (-1, -1, -1), show.elapsed
    while True:
        progress = (len(show.handles), len(show.outcomes), reader.effect_count())
        if progress != seen:
            seen, seen_at = progress, show.elapsed
        elif show.elapsed - seen_at > PATIENCE:
            raise Stalled(await what_is_left(show))
        await asyncio.sleep(0.25)


async def what_is_left(show: Show) -> str:
    """Which orders are open, why the first of them is, and what the worker said last."""
    left = [entry.order.id for entry in show.entries if entry.order.id not in show.outcomes]
    some = ", ".join(left[:5]) + (" …" if len(left) > 5 else "")
    text = f"nothing moved for {PATIENCE:.0f} s; {len(left)} orders are open: {some}"
    if left and left[0] in show.handles:
        run = await show.handles[left[0]].describe()
        text += f"\n{left[0]} is {run.status}: {run.blocked_reason or 'no reason is known'}"
    return text + (f"\n{show.worker.name} said last{show.worker.last_words(6)}" if show.worker else "")


async def run_workers(
    show: Show, screen: Screen, children: Children, arguments: Sequence[str], reader: LedgerReader
) -> None:
    """One worker after the other; all but the last are killed."""
    for number in range(1, show.kills_wanted + 2):
        show.worker = child = await children.start(f"worker {number}", [*arguments, f"worker-{number}"])
        screen.say(f"worker {number} started (pid {child.pid})", at=show.elapsed)
        show.waves.release()
        if number <= show.kills_wanted:
            await right_moment(show, child, reader)
            kill = Kill(f"worker-{number}", child.pid, child.started_at, await child.kill())
            show.kills.append(kill)
            in_flight = f"{len(show.handles) - len(show.outcomes)} orders, calls: {reader.in_flight(kill.started_at)}"
            screen.say(
                f"worker {number} killed with SIGKILL; in flight: {in_flight}", at=show.elapsed, style="bold red"
            )
            await asyncio.sleep(show.dice.uniform(0.1, 0.5))
    while show.worker:
        show.worker.check()
        await asyncio.sleep(0.1)


async def right_moment(show: Show, child: Child, reader: LedgerReader) -> None:
    """A random moment after the worker's first call to the shop at which one of its calls is under way."""
    first_call = asyncio.get_running_loop().time() + 10
    while not reader.in_flight(child.started_at) and asyncio.get_running_loop().time() < first_call:
        child.check()
        await asyncio.sleep(0.02)
    await asyncio.sleep(show.dice.uniform(0.05, 1.5))
    last_moment = asyncio.get_running_loop().time() + 3
    while not reader.in_flight(child.started_at) and asyncio.get_running_loop().time() < last_moment:
        child.check()
        await asyncio.sleep(0.005)
