"""Random numbers, UUIDs and side effects are drawn once: every replay sees the same."""

import asyncio
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

import derecho
from derecho import Context, DeterminismError, PayloadError, activity, workflow
from derecho.runtime.randoms import ReplayRandom
from tests.runtime.conftest import DriveOf
from tests.support.drive import Drive, names


@activity
async def work() -> None: ...


@workflow
async def draws(ctx: Context) -> list[str]:
    drawn: list[Any] = [ctx.random.random(), ctx.random.randint(1, 10**9), ctx.uuid4()]
    await work.execute(ctx)
    drawn += [ctx.random.choice("abcdef"), ctx.random.sample(range(100), 3), ctx.uuid4()]
    deck = list(range(10))
    ctx.random.shuffle(deck)
    drawn += [deck, ctx.random.gauss(0, 1), ctx.random.getrandbits(70), ctx.random.uniform(1, 2)]
    return [str(one) for one in drawn]


def played(drive: DriveOf) -> Drive:
    run = drive(draws)
    run.begin()
    run.task(run.completed("work"))
    return run


def test_a_replay_draws_the_same_numbers_and_ids(drive: DriveOf) -> None:
    run = played(drive)
    run.check()
    assert played(drive).result == run.result


def test_two_runs_draw_different_ones() -> None:
    assert ReplayRandom(b"run-1").random() != ReplayRandom(b"run-2").random()


def test_uuids_and_numbers_do_not_depend_on_each_other(drive: DriveOf) -> None:
    @workflow
    async def more_numbers(ctx: Context) -> str:
        for _ in range(100):
            ctx.random.random()
        return str(ctx.uuid4())

    run = drive(more_numbers)
    run.begin()
    assert run.result == played(drive).result[2]


def test_ids_are_uuids_of_version_4(drive: DriveOf) -> None:
    first, second = (uuid.UUID(played(drive).result[place]) for place in (2, 5))
    assert (first.version, first.variant) == (4, uuid.RFC_4122)
    assert first != second


def test_the_stream_is_splitmix64_by_its_published_numbers() -> None:
    stream = ReplayRandom(b"seed")
    stream.setstate(1_234_567)
    assert [stream.getrandbits(64) for _ in range(3)] == [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
    ]


def test_the_seed_of_a_run_is_the_one_that_recorded_histories_have() -> None:
    stream = ReplayRandom(b"seed")
    assert (stream.getrandbits(64), stream.random()) == (11_042_340_404_369_268_508, 0.2095395513169952)


def test_it_spreads_evenly() -> None:
    stream = ReplayRandom(b"seed")
    draws = [stream.random() for _ in range(10_000)]
    assert all(0 <= number < 1 for number in draws)
    assert [sum(number * 10 // 1 == tenth for number in draws) for tenth in range(10)] == pytest.approx(
        [1_000] * 10, rel=0.12
    )


def test_it_cannot_be_seeded_again(drive: DriveOf) -> None:
    with pytest.raises(NotImplementedError, match=r"ctx\.random is seeded from the run"):
        ReplayRandom(b"seed").seed(5)


def test_a_side_effect_runs_once_in_the_life_of_a_run(drive: DriveOf) -> None:
    calls: list[int] = []

    @workflow
    async def drawn(ctx: Context) -> list[float]:
        def draw() -> float:
            calls.append(1)
            return random.random()

        first = ctx.side_effect(draw)
        await work.execute(ctx)
        return [first, ctx.side_effect(draw)]

    run = drive(drawn)
    assert names(run.begin()) == ["side_effect_recorded", "work"]
    run.task(run.completed("work"))
    assert len(calls) == 2
    again = drive(drawn)
    again.take_over(run)
    assert again.result == run.result
    assert len(calls) == 2


@dataclass
class Point:
    x: int
    at: datetime


def test_a_side_effect_gives_the_decoded_value_from_the_first(drive: DriveOf) -> None:
    made: list[Point] = []

    @workflow
    async def typed(ctx: Context) -> list[bool]:
        def make() -> Point:
            made.append(Point(1, datetime(2024, 1, 1, tzinfo=UTC)))
            return made[-1]

        by_annotation = ctx.side_effect(make)
        by_type = ctx.side_effect(lambda: made[0], type=Point)
        return [by_annotation == made[0], by_annotation is not made[0], by_type == made[0]]

    run = drive(typed)
    run.begin()
    assert run.result == [True, True, True]
    drive(typed).take_over(run)


@pytest.mark.parametrize("value", [(1, 2), uuid.UUID(int=1), Point(1, datetime(2024, 1, 1, tzinfo=UTC))], ids=repr)
def test_an_untyped_side_effect_that_would_come_back_different_is_refused_at_once(
    drive: DriveOf, value: object
) -> None:
    @workflow
    async def untyped(ctx: Context) -> None:
        ctx.side_effect(lambda: value)

    with pytest.raises(PayloadError, match=r"the result of a side effect .* annotate its type"):
        drive(untyped).begin()


def test_an_error_in_a_side_effect_is_the_authors(drive: DriveOf) -> None:
    @workflow
    async def fails(ctx: Context) -> str:
        try:
            ctx.side_effect(lambda: 1 / 0)
        except ZeroDivisionError:
            return "caught"
        return "not"

    run = drive(fails)
    assert names(run.begin()) == ["side_effect_recorded", "workflow_completed"]
    assert run.result == "caught"
    run.replay()


def in_a_side_effect(ctx: Context) -> Any:
    return ctx.side_effect(lambda: ctx.random.random())


def a_call_in_a_side_effect(ctx: Context) -> Any:
    return ctx.side_effect(lambda: bool(work.execute(ctx)))


@pytest.mark.parametrize("draw", [in_a_side_effect, a_call_in_a_side_effect])
def test_what_a_replay_would_not_come_by_is_refused(drive: DriveOf, draw: Any) -> None:
    @workflow
    async def draws_there(ctx: Context) -> None:
        await draw(ctx)

    with pytest.raises(DeterminismError, match=r"used outside its workflow, at runtime/test_chance\.py:\d+: .*steps"):
        drive(draws_there).begin()


async def test_a_step_cannot_draw_from_the_stream_of_its_run() -> None:
    @workflow
    async def draws_in_a_step(ctx: Context) -> str:
        async def draw() -> str:
            return str(ctx.uuid4())

        try:
            return await ctx.step("draw", draw)
        except DeterminismError:
            return f"refused, and now {ctx.uuid4()}"

    async with derecho.Engine("memory:", workflows=[draws_in_a_step]) as engine:
        handle = await engine.client.start(draws_in_a_step.bind())
        assert (await handle.result(timeout=30)).startswith("refused, and now ")
        derecho.replay(draws_in_a_step, await handle.history())


def test_a_side_effect_that_is_cancelled_is_a_slip_and_not_recorded(drive: DriveOf) -> None:
    def cancelled() -> int:
        raise asyncio.CancelledError

    @workflow
    async def cancels_itself(ctx: Context) -> int:
        return ctx.side_effect(cancelled)

    with pytest.raises(DeterminismError, match=r"a side effect at .* raised CancelledError"):
        drive(cancels_itself).begin()
