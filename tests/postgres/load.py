"""Load under which databases fail: clients that start and signal runs, and remember what was acknowledged.

What is remembered stands outside of the system, so in the end each acknowledged fact can be asked for.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import derecho
from derecho import Client, Context, Handle, Signal
from derecho.audit import audit
from derecho.errors import StoreUnavailable, WorkflowNotFound
from tests.support.world import eventually

GO = Signal("go", int)
GO_ON = Signal("go-on", bool)

LEDGER = "DERECHO_LEDGER"
"""Names the file to which workers append what they do, as an outside system would."""


def write(line: str) -> None:
    path = os.environ.get(LEDGER)
    if path is not None:
        ledger = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(ledger, f"{line}\n".encode())
        os.close(ledger)


@derecho.activity
async def double(n: int) -> int:
    activity = derecho.current_activity()
    write(f"begin {activity.idempotency_key} {activity.attempt} {os.getpid()}")
    await asyncio.sleep(0.03)
    return 2 * n


@derecho.workflow
async def order(ctx: Context, n: int) -> int:
    first = await double.execute(ctx, n)
    await ctx.sleep(0.01)
    return first + await double.execute(ctx, await ctx.signals(GO).receive())


class Load:
    """`counts` has the operations that were ok, failed (nothing was done) and unknown; `faults` what the test did."""

    def __init__(self, client: Client, feeders: int = 4) -> None:
        self.client = client
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.started: set[int] = set()
        self.signalled: set[int] = set()
        self.unknown: set[int] = set()
        self.in_flight = 0
        self._feeders = feeders
        self._next = 0

    @asynccontextmanager
    async def running(self) -> Any:
        feeders = [asyncio.create_task(self._feed()) for _ in range(self._feeders)]
        try:
            yield self
        finally:
            for feeder in feeders:
                feeder.cancel()
            ended = await asyncio.gather(*feeders, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended

    async def progress(self, count: int = 10) -> None:
        """Wait until so many more runs were started and signalled."""
        goal = len(self.signalled) + count
        await eventually(lambda: len(self.signalled) >= goal)

    async def fault(self, kind: str, *, landed: bool = False) -> None:
        """A fault is about to strike: it lands when somebody waits for an answer, or some run is at work.

        On a quick machine there is an instant now and then at which nobody is; then it waits for the next one.
        """
        for _ in range(1_000):
            landed = landed or self.in_flight > 0 or bool([run async for run in self.client.list(status="running")])
            if landed:
                break
            await asyncio.sleep(0.001)
        self.faults["fired"] += 1
        self.faults["landed"] += landed
        self.faults[kind] += 1

    async def _feed(self) -> None:
        while True:
            number, self._next = self._next, self._next + 1
            if await self._try(self.unknown, number, self.client.start, order.bind(number), id=f"w{number}"):
                self.started.add(number)
                handle = self.client.get(order, f"w{number}")
                if await self._try(set(), number, handle.signal, GO, number, key="go"):
                    self.signalled.add(number)
            await asyncio.sleep(0.1)  # engines that drown in work are another test's matter

    async def _try(
        self, unknown: set[int], number: int, call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> bool:
        self.in_flight += 1
        unknown.add(number)
        try:
            await call(*args, **kwargs)
        except StoreUnavailable as exc:
            self.counts["unknown" if exc.outcome == "unknown" else "failed"] += 1
            if exc.outcome != "unknown":
                unknown.discard(number)
            await asyncio.sleep(0.02)
            return False
        finally:
            self.in_flight -= 1
        unknown.discard(number)
        self.counts["ok"] += 1
        return True

    async def check(self, planned: int, floor: float = 0.8) -> set[str]:
        """All that was acknowledged is there, once, and ends as it should; says what was done and seen.

        `floor`: the share of operations that must have been ok. Faults that meet nobody at work prove nothing.

        Gives the idempotency keys of all activities that have an outcome.
        """
        print(f"planned {planned}, {dict(self.faults)}; operations {dict(self.counts)}")
        assert self.faults["fired"] >= planned, self.faults
        assert self.faults["landed"] >= 0.95 * planned, self.faults
        assert self.counts["ok"] >= floor * self.counts.total(), self.counts
        there = [number for number in sorted(self.unknown) if await self._is_there(number)]
        print(f"{len(self.started)} starts acknowledged, {len(there)} of {len(self.unknown)} unknown ones took effect")
        keys = set()
        for number in (*sorted(self.started), *there):
            handle = self.client.get(order, f"w{number}")
            if number not in self.signalled:
                with suppress(WorkflowNotFound):  # it had arrived, and the run has closed
                    await handle.signal(GO, number, key="go")  # as a client does that has no answer yet
            released = await self._released(handle)
            assert await handle.result(timeout=60) == 4 * number
            history = await handle.history()
            derecho.replay(order, history)
            kinds = Counter(event["type"] for event in history)
            assert (kinds["activity_completed"], kinds["signal_received"] - released) == (2, 1), f"w{number}: {kinds}"
            done = {event["activity"] for event in history if event["type"] == "activity_completed"}
            keys |= {f"{history.run_id}:{activity}" for activity in done}
        assert await audit(self.client.store) == []
        return keys

    async def _released(self, handle: Handle[int]) -> int:
        """Wait until a run has ended. One that three killed workers held waits for a person: how often it did."""
        released = 0

        async def has_ended() -> bool:
            nonlocal released
            run = await handle.describe()
            if run.status == "blocked" and "quarantined" in (run.blocked_reason or ""):
                with suppress(WorkflowNotFound):
                    await handle.signal(GO_ON, True)
                    released += 1
            return run.closed_at is not None

        await eventually(has_ended)
        return released

    async def _is_there(self, number: int) -> bool:
        try:
            await self.client.get(order, f"w{number}").describe()
        except WorkflowNotFound:
            return False
        return True
