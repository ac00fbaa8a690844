"""Heartbeats: few writes, the newest progress for the next attempt, and news for the attempt itself. (G21)"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

import derecho
from derecho import Context, RetryPolicy, Store
from derecho.clock import SECOND
from derecho.journal.changes import Heartbeat, Result, RetryActivity, Transition
from derecho.testing.clock import VirtualClock
from tests.activities.kit import Probe, calling, engine, probe, quiet
from tests.support.world import engine_of, eventually

AT_ONCE = RetryPolicy(initial_interval=0)


class Watched:
    """A store that notes the heartbeats that it is handed."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.beats: list[Heartbeat] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, transitions: Sequence[Transition]) -> list[Result]:
        self.beats += [change for item in transitions for change in item if isinstance(change, Heartbeat)]
        return await self._inner.commit(transitions)


@dataclass
class Progress:
    """Values of any kind come back by type."""

    chunk: int
    name: str


@derecho.activity
async def copy(fail_at: int) -> list[int]:
    """Works through ten chunks, from where the attempt before it came."""
    act = probe().enter()
    last = act.last_heartbeat(Progress)
    probe().notes.append(None if last is None else last.chunk)
    for chunk in range(0 if last is None else last.chunk + 1, 10):
        act.heartbeat(Progress(chunk, "x"))
        if act.attempt == 1 and chunk == fail_at:
            raise ConnectionError("lost")
    return [act.attempt]


@derecho.activity("copy in a thread")
def copy_in_thread(fail_at: int) -> list[int]:
    return asyncio.run(copy(fail_at))


@pytest.mark.parametrize("activity", [copy, copy_in_thread], ids=["loop", "thread"])
async def test_the_next_attempt_goes_on_where_the_last_one_was(
    store: Store, activity: derecho.Activity[[int], list[int]]
) -> None:
    seen = Probe()
    caller = calling(activity.bind(6), retry=AT_ONCE)
    async with engine(store, caller, activity, probe=seen) as running:
        assert await running.client.run(caller.bind()) == [2]
    assert seen.notes == [None, 6], "the last heartbeat before the failure, though it came within the throttle"


async def test_heartbeats_in_an_inner_loop_are_few_writes(store: Store, clock: VirtualClock) -> None:
    @derecho.activity(heartbeat_timeout=10)
    async def busy() -> int:
        for count in range(10_000):
            derecho.heartbeat(count)
            if count % 1_000 == 0:
                clock.advance(9 * SECOND // 10)  # less than the timeout: this test is not about beats that come late
                await asyncio.sleep(0)
        return 1

    watched: Any = Watched(store)
    async with engine(watched, caller := calling(busy.bind()), busy) as running:
        assert await running.client.run(caller.bind()) == 1
    assert 2 <= len(watched.beats) <= 4, "nine seconds, at most one write in five of them, and the first at once"


async def test_beats_keep_an_attempt_alive_and_silence_ends_it(store: Store, clock: VirtualClock) -> None:
    @derecho.activity(heartbeat_timeout=10, retry=RetryPolicy.none())
    async def alive() -> int:
        act = probe().enter()

        async def is_written() -> bool:
            [row] = (await store.pending(act.run_id)).activities
            return row.timeout_at == clock.now() + 10 * SECOND

        for _ in range(5):
            act.heartbeat()
            await eventually(is_written)
            clock.advance(6 * SECOND)
            await quiet(0.02)
        probe().notes.append(act.cancel_reason)
        return 5

    seen = Probe()
    async with engine(store, caller := calling(alive.bind()), alive, probe=seen) as running:
        assert await running.client.run(caller.bind()) == 5
    assert seen.notes == [None]


async def test_a_beat_without_progress_keeps_the_progress(store: Store) -> None:
    @derecho.activity(retry=AT_ONCE)
    async def work() -> int | None:
        act = probe().enter()
        if act.attempt == 1:
            act.heartbeat(7)
            await quiet()
            act.heartbeat()
            raise ValueError("again")
        return act.last_heartbeat(int)

    async with engine(store, caller := calling(work.bind()), work) as running:
        assert await running.client.run(caller.bind()) == 7


async def test_a_superseded_attempt_is_refused_and_stopped_by_its_next_heartbeat(store: Store) -> None:
    """The engine's clock may be wrong or its loop may have stood still: what it holds is taken away behind its back."""

    @derecho.activity(retry=AT_ONCE)
    async def work() -> int:
        act = probe().enter()
        if act.attempt == 1:
            await probe().go.wait()
            act.heartbeat("from the first attempt")
            await asyncio.sleep(30)
        await eventually(lambda: probe().attempts[0].cancelled())
        assert act.last_heartbeat(str) is None
        return act.attempt

    seen = Probe()
    async with engine(store, caller := calling(work.bind()), work, probe=seen) as running:
        handle = await running.client.start(caller.bind())
        await seen.began(1)
        [row] = (await store.pending(handle.run_id)).activities
        now = store.now()
        retry = RetryActivity(row.run_id, row.activity, row.claim or "", 2, now, None, None)
        await store.commit([(retry,)])
        await seen.began(2)
        seen.go.set()
        assert await handle.result(timeout=10) == 2
    assert [act.cancel_reason for act in seen.attempts] == ["lost", None]


async def test_heartbeats_reach_the_store_from_a_thread_that_never_pauses(store: Store) -> None:
    @derecho.activity
    def spin() -> int:
        act = probe().enter()
        until = time.monotonic() + 5
        while not probe().go.is_set() and time.monotonic() < until:
            act.heartbeat("spinning")
        return 1

    seen = Probe()
    async with engine(store, caller := calling(spin.bind()), spin, probe=seen) as running:
        handle = await running.client.start(caller.bind())

        async def stored() -> Any:
            return any(row.heartbeat for row in (await store.pending(handle.run_id)).activities)

        await eventually(stored)
        seen.go.set()
        assert await handle.result(timeout=10) == 1


async def test_progress_that_cannot_be_encoded_is_refused_at_the_call(store: Store) -> None:
    @derecho.activity(retry=RetryPolicy.none())
    async def work() -> str:
        with pytest.raises(derecho.PayloadError, match="heartbeat of activity 'work'"):
            derecho.heartbeat(object())
        return "refused"

    async with engine(store, caller := calling(work.bind()), work) as running:
        assert await running.client.run(caller.bind()) == "refused"


async def test_who_beats_on_after_the_engine_has_stopped_troubles_nobody(store: Store) -> None:
    """Code that does not let itself be cancelled outlives its engine."""
    stopped, trouble, beats = asyncio.Event(), list[dict[str, Any]](), 0
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))

    @derecho.activity
    async def stubborn() -> None:
        nonlocal beats
        while not stopped.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
            derecho.heartbeat()
            beats += 1

    @derecho.workflow
    async def calls(ctx: Context) -> None:
        await stubborn.execute(ctx)

    async with engine_of(store, calls, stubborn) as host:
        await host.client.start(calls.bind())
        await eventually(lambda: beats)
        [attempt] = host.activities.running()
    before = beats
    attempt.next_beat_at = 0
    await eventually(lambda: beats > before + 3)
    stopped.set()
    assert attempt.task is not None
    await asyncio.wait({attempt.task}, timeout=20)
    assert trouble == []
