"""Timers: durable, cancellable, late ones fire once."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from derecho import Context, WorkflowFailed, workflow
from tests.support.flows import WEEK, Flows, types


@workflow
async def sleeper(ctx: Context, seconds: float) -> float:
    began = ctx.now()
    await ctx.sleep(seconds, summary="a nap")
    return (ctx.now() - began).total_seconds()


async def test_a_timer_fires_after_a_week_without_any_engine(flows: Flows) -> None:
    async with flows.engine(sleeper) as engine:
        handle = await engine.client.start(sleeper.bind(WEEK.total_seconds()), id="w")
        await flows.waiting("w")
    flows.clock.advance(WEEK)
    async with flows.engine(sleeper) as engine:
        assert await engine.client.get(sleeper, "w").result() == WEEK.total_seconds()
        assert len(await flows.events(handle, "timer_fired")) == 1


async def test_a_late_timer_fires_once_and_says_when_it_was_due(flows: Flows) -> None:
    @workflow
    async def remembers(ctx: Context) -> list[float]:
        began = ctx.now()
        due = await ctx.new_timer(60)
        return [(due - began).total_seconds(), (ctx.now() - began).total_seconds()]

    async with flows.engine(remembers) as engine:
        await engine.client.start(remembers.bind(), id="w")
        await flows.waiting("w")
    flows.clock.advance(3 * WEEK)
    async with flows.engine(remembers) as one, flows.engine(remembers):
        handle = one.client.get(remembers, "w")
        assert await handle.result() == [60, 3 * WEEK.total_seconds()]
        assert len(await flows.events(handle, "timer_fired")) == 1


async def test_a_timer_does_not_fire_a_microsecond_early(flows: Flows) -> None:
    async with flows.engine(sleeper) as engine:
        handle = await engine.client.start(sleeper.bind(60.0), id="w")
        await flows.advance(timedelta(seconds=59, microseconds=999_999), "w")
        due = await engine.store.due_timers(10)
        assert not due.timers
        flows.clock.advance(timedelta(microseconds=1))
        assert await handle.result() == 60


@workflow
async def cancels_a_timer(ctx: Context) -> str:
    timer = ctx.new_timer(3600)
    await ctx.sleep(1)
    timer.cancel()
    await ctx.sleep(1)
    try:
        await timer
    except asyncio.CancelledError:
        return "cancelled"
    return "fired"


async def test_cancelling_a_timer_removes_it_from_the_store(flows: Flows) -> None:
    async with flows.engine(cancels_a_timer) as engine:
        handle = await engine.client.start(cancels_a_timer.bind(), id="w")
        await flows.waiting("w")
        assert len((await flows.pending("w")).timers) == 2
        flows.clock.advance(1)

        async def one_timer_is_left() -> bool:
            return len(await flows.events(handle, "timer_cancelled")) == 1

        await flows.until(one_timer_is_left)
        assert len((await flows.pending("w")).timers) == 1
        await flows.advance(1, "w")
        assert await handle.result() == "cancelled"


@workflow
async def cancels_in_the_same_breath(ctx: Context) -> int:
    ctx.new_timer(3600).cancel()
    await ctx.sleep(1)
    return 1


async def test_a_timer_cancelled_in_its_own_task_never_reaches_the_store(flows: Flows) -> None:
    async with flows.engine(cancels_in_the_same_breath) as engine:
        handle = await engine.client.start(cancels_in_the_same_breath.bind(), id="w")
        await flows.waiting("w")
        assert len((await flows.pending("w")).timers) == 1
        flows.clock.advance(1)
        assert await handle.result() == 1
        await flows.check_replay(handle, cancels_in_the_same_breath)


@workflow
async def sleeps_until(ctx: Context, when: datetime) -> datetime:
    await ctx.sleep_until(when)
    return ctx.now()


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5, minutes=45))])
async def test_sleep_until_takes_an_aware_datetime_of_any_zone(flows: Flows, zone: Any) -> None:
    when = datetime(2023, 12, 24, 18, 0, tzinfo=zone)
    async with flows.engine(sleeps_until) as engine:
        handle = await engine.client.start(sleeps_until.bind(when), id="w")
        row = await flows.waiting("w")
        [timer] = (await engine.store.pending(row.run_id)).timers
        flows.clock.advance((timer.fire_at - flows.clock.now()) / 1e6)
        assert await handle.result() == when


async def test_sleep_until_a_past_instant_goes_on_at_once_and_records_no_timer(flows: Flows) -> None:
    async with flows.engine(sleeps_until) as engine:
        handle = await engine.client.start(sleeps_until.bind(datetime(2001, 1, 1, tzinfo=UTC)), id="w")
        await handle.result()
        assert "timer_scheduled" not in types(await flows.events(handle))


async def test_sleep_until_a_naive_datetime_is_refused(flows: Flows) -> None:
    @workflow
    async def naive(ctx: Context) -> None:
        await ctx.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001  # this is the point

    async with flows.engine(naive) as engine:
        with pytest.raises(WorkflowFailed, match="no time zone"):
            await engine.client.run(naive.bind(), id="w")


async def test_an_instant_after_the_year_9999_does_not_break_the_run(flows: Flows) -> None:
    @workflow
    async def patient(ctx: Context) -> bool:
        timer = ctx.new_timer(timedelta(days=9999 * 366))
        await ctx.sleep(1)
        timer.cancel()
        return True

    async with flows.engine(patient) as engine:
        handle = await engine.client.start(patient.bind(), id="w")
        await flows.advance(1, "w")
        assert await handle.result()


@workflow
async def many_naps(ctx: Context) -> list[int]:
    order: list[int] = []

    async def nap(ctx: Context, n: int) -> None:
        await ctx.sleep(n)
        order.append(n)

    await asyncio.gather(*(ctx.go(nap, n) for n in (3, 1, 2)))
    return order


async def test_timers_that_are_all_late_fire_in_the_order_in_which_they_were_due(flows: Flows) -> None:
    async with flows.engine(many_naps) as engine:
        await engine.client.start(many_naps.bind(), id="w")
        await flows.waiting("w")
    flows.clock.advance(WEEK)
    async with flows.engine(many_naps) as engine:
        assert await engine.client.get(many_naps, "w").result() == [1, 2, 3]


async def test_a_closed_run_leaves_no_timer(flows: Flows) -> None:
    @workflow
    async def leaves(ctx: Context) -> None:
        ctx.new_timer(60)
        await ctx.sleep(1)

    async with flows.engine(leaves) as engine:
        handle = await engine.client.start(leaves.bind(), id="w")
        await flows.advance(1, "w")
        await handle.result()
        assert (await engine.store.due_timers(10)).next_at is None


async def test_zero_and_negative_sleeps_yield_to_other_fibers_and_record_nothing(flows: Flows) -> None:
    @workflow
    async def yields(ctx: Context) -> list[str]:
        order: list[str] = []

        async def other(ctx: Context) -> None:
            order.append("other")

        ctx.go(other)
        await ctx.sleep(0)
        await ctx.sleep(-5)
        return [*order, "main"]

    async with flows.engine(yields) as engine:
        handle = await engine.client.start(yields.bind(), id="w")
        assert await handle.result() == ["other", "main"]
        assert "timer_scheduled" not in types(await flows.events(handle))
