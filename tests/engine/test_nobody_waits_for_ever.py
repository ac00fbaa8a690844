"""Whoever calls an engine's client is told how it went, and no run stands still because a caller went away."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

import derecho
from derecho import (
    Client,
    Context,
    PayloadError,
    RetryPolicy,
    Signal,
    Store,
    StoreUnavailable,
    WorkflowCancelled,
    WorkflowTerminated,
    outages,
)
from derecho.engine.turns import Job, Turns
from derecho.journal.model import RunRow
from tests.support.world import engine_of, eventually
from tests.support.wrapped import Gate, Weather, wrapped

go = Signal("go", int)


@derecho.workflow
async def adds(ctx: Context) -> int:
    return sum([await ctx.signals(go).receive() for _ in range(3)])


@derecho.workflow
async def waits(ctx: Context) -> int:
    return await ctx.signals(go).receive()


@derecho.workflow
async def is_told(ctx: Context, tokens: str) -> list[int]:
    callback = ctx.callback(int)
    TOKENS[tokens] = callback.token
    return [await callback.future, await ctx.signals(go).receive()]


TOKENS: dict[str, str] = {}


async def test_a_signal_whose_sender_goes_away_does_not_leave_its_run_standing(store: Store) -> None:
    gate = Gate()
    async with engine_of(wrapped(store, commit=gate), adds) as engine:
        handle = await engine.client.start(adds.bind(), id="w")
        await eventually(lambda: engine.holds(handle.run_id))
        gate.is_open = False
        sending = asyncio.create_task(handle.signal(go, 1, key="first"))
        await eventually(lambda: gate.waiting)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        gate.is_open = True
        for number, key in ((1, "first"), (2, "second"), (3, "third")):
            await handle.signal(go, number, key=key)
        assert await handle.result(timeout=30) == 6


async def test_a_signal_that_is_given_up_with_its_answer_lost_does_not_leave_its_run_standing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "PATIENCE", 0.05)
    lost = 0
    deaf = False

    async def unanswered(original: Callable[..., Awaitable[Any]], batch: Sequence[Any]) -> Any:
        nonlocal lost
        if deaf and lost:
            raise StoreUnavailable("away", outcome="not_applied")
        results = await original(batch)
        if deaf:
            lost += 1
            raise StoreUnavailable("its answer was lost", outcome="unknown")
        return results

    async with engine_of(wrapped(store, commit=unanswered), adds) as engine:
        handle = await engine.client.start(adds.bind(), id="w")
        await eventually(lambda: engine.holds(handle.run_id))
        deaf = True
        with pytest.raises(StoreUnavailable):
            await handle.signal(go, 1, key="first")
        deaf = False
        for number, key in ((1, "first"), (2, "second"), (3, "third")):
            await handle.signal(go, number, key=key)
        assert await handle.result(timeout=30) == 6
    assert lost == 1


async def test_a_callback_whose_completer_goes_away_does_not_leave_its_run_standing(store: Store) -> None:
    gate = Gate()
    async with engine_of(wrapped(store, commit=gate), is_told) as engine:
        handle = await engine.client.start(is_told.bind(store.url), id="w")
        await eventually(lambda: store.url in TOKENS and engine.holds(handle.run_id))
        gate.is_open = False
        completing = asyncio.create_task(engine.client.complete(TOKENS.pop(store.url), 1))
        await eventually(lambda: gate.waiting)
        completing.cancel()
        await asyncio.gather(completing, return_exceptions=True)
        gate.is_open = True
        await handle.signal(go, 2)
        assert await handle.result(timeout=30) == [1, 2]


async def test_a_result_comes_though_somebody_else_ends_the_run_that_is_held_here(store: Store) -> None:
    async with engine_of(store, waits) as engine, Client(store) as other:
        for end in ("terminate", "replace"):
            handle = await engine.client.start(waits.bind(), id=end)
            result = asyncio.create_task(handle.result(timeout=30))
            await eventually(lambda handle=handle: engine.holds(handle.run_id))
            await asyncio.sleep(0.3)  # it has looked, and waits to be told
            if end == "terminate":
                await other.get(waits, end).terminate("no longer wanted")
            else:
                await engine.client.start(waits.bind(), id=end, if_running="terminate")
            with pytest.raises(WorkflowTerminated):
                await result


async def test_a_result_comes_though_another_engine_takes_the_run_that_is_held_here(store: Store) -> None:
    async with engine_of(store, waits) as one:
        handles = [await one.client.start(waits.bind(), id=f"w{n}") for n in range(20)]
        await eventually(lambda: all(one.holds(handle.run_id) for handle in handles))
        results = [asyncio.create_task(handle.result(timeout=30)) for handle in handles]
        await asyncio.sleep(0.3)
        async with engine_of(store, waits), Client(store) as client:
            for n in range(20):
                await client.get(waits, f"w{n}").signal(go, n)
            assert await asyncio.gather(*results) == list(range(20))


async def test_an_outcome_that_cannot_be_read_is_told_to_who_waits_for_it_alone(store: Store) -> None:
    spoilt: set[str] = set()

    async def spoil(original: Callable[..., Awaitable[Any]], run_ids: Sequence[str]) -> Any:
        rows: list[RunRow] = await original(run_ids)
        return [msgspec.structs.replace(row, outcome="{") if row.run_id in spoilt else row for row in rows]

    async with engine_of(store, waits), Client(wrapped(store, closed=spoil)) as client:
        bad, good = [await client.start(waits.bind(), id=id) for id in ("bad", "good")]
        spoilt.add(bad.run_id)
        results = [asyncio.create_task(handle.result(timeout=30)) for handle in (bad, good)]
        await asyncio.sleep(0.1)
        for handle in (bad, good):
            await handle.signal(go, 5)
        assert await results[1] == 5
        with pytest.raises(PayloadError, match=f"the outcome of run {bad.run_id} cannot be read"):
            await results[0]


@derecho.workflow
async def steps(ctx: Context, kind: str) -> str:
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        TRIED.append(kind)
        raise OSError("down")

    await ctx.step("step", hangs if kind == "hangs" else fails, retry=RetryPolicy(initial_interval=0.01))
    return "never"


TRIED: list[str] = []


async def test_a_run_in_a_step_hears_what_others_write_to_it(store: Store) -> None:
    engine = engine_of(store, steps)
    engine.poll_interval = 0.1  # twice in it the lease is renewed
    async with engine, Client(store) as other:
        handle = await engine.client.start(steps.bind("hangs"), id="w")
        run = await eventually(lambda: engine.workflows.runs.get(handle.run_id))
        await eventually(lambda: run.steps)
        await other.get(steps, "w").cancel("enough")
        with pytest.raises(WorkflowCancelled):
            await handle.result(timeout=30)


async def test_a_step_of_a_run_that_somebody_else_has_terminated_is_not_tried_again(store: Store) -> None:
    engine = engine_of(store, steps)
    engine.poll_interval = 0.1
    async with engine, Client(store) as other:
        handle = await engine.client.start(steps.bind(store.url), id="w")
        await eventually(lambda: TRIED.count(store.url) >= 2)
        await other.get(steps, "w").terminate("enough")
        await eventually(lambda: not engine.holds(handle.run_id))
        before = TRIED.count(store.url)
        await asyncio.sleep(0.1)
        assert TRIED.count(store.url) == before


async def test_a_start_is_told_that_the_engine_stopped_while_the_store_was_away(store: Store) -> None:
    weather = Weather(StoreUnavailable("the database is away", outcome="not_applied"))
    async with engine_of(wrapped(store, commit=weather), waits) as engine:
        weather.bad = True
        starting = asyncio.create_task(engine.client.start(waits.bind(), id="w"))
        await eventually(lambda: weather.struck > 1)
    weather.bad = False
    with pytest.raises(StoreUnavailable, match="closed before the store had answered"):
        await asyncio.wait_for(starting, 30)


async def test_a_start_whose_first_turn_is_under_way_is_told_that_the_engine_stopped(store: Store) -> None:
    begun, may_end = asyncio.Event(), False

    @derecho.workflow
    async def computes(ctx: Context) -> None:
        loop.call_soon_threadsafe(begun.set)
        while not may_end:
            pass

    loop = asyncio.get_running_loop()
    async with engine_of(store, computes, shutdown_timeout=0) as engine:
        starting = asyncio.create_task(engine.client.start(computes.bind(), id="w"))
        await begun.wait()
    may_end = True
    with pytest.raises(StoreUnavailable, match="the engine has stopped"):
        await asyncio.wait_for(starting, 30)


class Slow:
    """A job that ends in the very moment in which it is being reported as stuck."""

    def __init__(self) -> None:
        self.may_end = False
        self.abandoned = False

    def run(self, mark: Callable[[], None]) -> None:
        while not self.may_end:
            pass

    def abandon(self) -> None:
        self.abandoned = True


async def test_a_turn_that_ends_while_it_is_reported_as_stuck_is_done_and_not_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[Job] = []
    stuck: list[Job] = []
    looks = 0

    def stack(lane: Any) -> str:
        nonlocal looks
        looks += 1
        job.may_end = True
        while lane.current[0] is not None:
            pass
        return "somewhere"

    monkeypatch.setattr("derecho.engine.turns._Lane.stack", stack)
    job = Slow()
    turns = Turns(done.append, lambda job, seconds, text: stuck.append(job), 0.05)
    turns.submit(job)
    await eventually(lambda: done or stuck)
    assert (done, stuck, job.abandoned, turns.outstanding, looks) == ([job], [], False, 0, 1)
    turns.close()


@pytest.mark.parametrize("wrong", [{"if_running": "use-existing"}, {"if_running": None}, {"if_closed": "Reject"}])
async def test_a_mistyped_option_of_a_start_does_not_end_the_run_that_is_there(store: Store, wrong: Any) -> None:
    async with engine_of(store, waits) as engine:
        handle = await engine.client.start(waits.bind(), id="w")
        with pytest.raises(PayloadError, match=r"if_\w+ is one of 'fail'|if_\w+ is one of 'allow'"):
            await engine.client.start(waits.bind(), id="w", **wrong)
        await handle.signal(go, 5)
        assert await handle.result(timeout=30) == 5
