"""Sagas: undo in reverse order, on failure and on cancellation, across crashes."""

import asyncio
from typing import Any

import pytest

from derecho import Context, RetryPolicy, Signal, WorkflowCancelled, WorkflowFailed, activity, workflow
from tests.support.flows import Flows

go = Signal("go", str)
books: list[str] = []


class CardDeclined(Exception):
    pass


@activity
async def do(what: str) -> str:
    books.append(f"do {what}")
    if what == "ship":
        raise CardDeclined("no lorry")
    return what


@activity
async def undo(what: str) -> None:
    books.append(f"undo {what}")
    if what == "broken":
        raise OSError("cannot be undone")


@pytest.fixture(autouse=True)
def _empty_books() -> None:
    books.clear()


@workflow
async def order(ctx: Context, steps: list[str]) -> str:
    async with ctx.saga() as saga:
        for step in steps:
            saga.compensate(undo.bind(await do.execute(ctx, step)))
    return "done"


async def test_nothing_is_undone_when_all_goes_well(flows: Flows) -> None:
    async with flows.engine(order, do, undo) as engine:
        assert await engine.client.run(order.bind(["reserve", "charge"]), id="w") == "done"
    assert books == ["do reserve", "do charge"]


async def test_a_failure_undoes_the_rest_last_one_first_and_stays_the_outcome(flows: Flows) -> None:
    async with flows.engine(order, do, undo, default_retry_policy=RetryPolicy.none()) as engine:
        with pytest.raises(WorkflowFailed) as caught:
            await engine.client.run(order.bind(["reserve", "charge", "ship"]), id="w")
        assert isinstance(caught.value.__cause__, CardDeclined)
    assert books == ["do reserve", "do charge", "do ship", "undo charge", "undo reserve"]


async def test_one_failed_undo_does_not_keep_the_others_from_being_tried(flows: Flows) -> None:
    async with flows.engine(order, do, undo, default_retry_policy=RetryPolicy.none()) as engine:
        with pytest.raises(WorkflowFailed, match="no lorry"):
            await engine.client.run(order.bind(["reserve", "broken", "charge", "ship"]), id="w")
    assert books[-3:] == ["undo charge", "undo broken", "undo reserve"]


@workflow
async def waits(ctx: Context) -> str:
    async with ctx.saga() as saga:
        for step in ("reserve", "charge"):
            saga.compensate(undo.bind(await do.execute(ctx, step)))
        await ctx.signals(go).receive()
    return "done"


async def test_cancellation_undoes_too_and_cannot_interrupt_it(flows: Flows) -> None:
    async with flows.engine(waits, do, undo) as engine:
        handle = await engine.client.start(waits.bind(), id="w")
        await flows.recorded(handle, "activity_completed", 2)
        await flows.waiting("w")
        await asyncio.gather(handle.cancel("once"), handle.cancel("twice"))
        with pytest.raises(WorkflowCancelled):
            await handle.result()
    assert books[2:] == ["undo charge", "undo reserve"]


async def test_an_undoing_goes_on_where_it_was_after_a_restart(flows: Flows) -> None:
    @activity
    async def slow_undo(what: str) -> None:
        books.append(f"undo {what}")
        if len(books) == 1:
            await asyncio.Event().wait()

    @workflow
    async def fails(ctx: Context) -> None:
        async with ctx.saga() as saga:
            for name in ("a", "b"):
                saga.compensate(slow_undo.bind(name))
            raise ValueError("no")

    async with flows.engine(fails, slow_undo) as engine:
        handle = await engine.client.start(fails.bind(), id="w")
        await flows.until(lambda: books)
        await flows.waiting("w")
    async with flows.engine(fails, slow_undo):
        with pytest.raises(WorkflowFailed, match="no"):
            await handle.result()
    assert books == ["undo b", "undo b", "undo a"]


async def test_children_can_be_compensations(flows: Flows) -> None:
    @workflow
    async def refund(ctx: Context, what: str) -> None:
        await undo.execute(ctx, what)

    @workflow
    async def fails(ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.compensate(refund.bind("payment"))
            raise ValueError("no")

    async with flows.engine(fails, refund, undo) as engine:
        with pytest.raises(WorkflowFailed, match="no"):
            await engine.client.run(fails.bind(), id="w")
    assert books == ["undo payment"]


async def test_continue_as_new_is_no_failure(flows: Flows) -> None:
    @workflow
    async def goes_on(ctx: Context, left: int) -> str:
        async with ctx.saga() as saga:
            saga.compensate(undo.bind("all"))
            if left:
                raise ctx.continue_as_new(goes_on.bind(left - 1))
        return "done"

    async with flows.engine(goes_on, undo) as engine:
        assert await engine.client.run(goes_on.bind(2), id="w") == "done"
    assert books == []


async def test_a_saga_in_a_fiber_undoes_when_its_group_fails(flows: Flows) -> None:
    @workflow
    async def grouped(ctx: Context) -> list[str]:
        caught: list[str] = []

        async def books_a_room() -> None:
            async with ctx.saga() as saga:
                saga.compensate(undo.bind(await do.execute(ctx, "room")))
                await ctx.sleep(3600)

        async def fails() -> None:
            await ctx.sleep(1)
            raise ValueError("no flight")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(books_a_room())
                group.create_task(fails())
        except* ValueError as errors:
            caught = [str(exc) for exc in errors.exceptions]
        return caught

    async with flows.engine(grouped, do, undo) as engine:
        handle = await engine.client.start(grouped.bind(), id="w")
        await flows.recorded(handle, "timer_scheduled", 2)
        await flows.advance(1, "w")
        assert await handle.result() == ["no flight"]
    assert books == ["do room", "undo room"]


async def test_continuing_as_new_out_of_a_group_is_no_failure(flows: Flows) -> None:
    @workflow
    async def goes_on(ctx: Context, round: int) -> str:
        async with ctx.saga() as saga:
            saga.compensate(undo.bind("done"))
            async with asyncio.TaskGroup():
                if round == 1:
                    raise ctx.continue_as_new(goes_on.bind(2))
        return "over"

    async with flows.engine(goes_on, undo) as engine:
        assert await engine.client.run(goes_on.bind(1)) == "over"
    assert books == []


@pytest.mark.parametrize(
    ("call", "reason"),
    [(undo, "saga.compensate takes a call, such as refund.bind"), (undo.bind(object()), "of activity 'undo'")],  # type: ignore[arg-type]
)
async def test_a_compensation_that_could_not_be_made_is_refused_while_the_code_can_be_mended(
    flows: Flows, call: Any, reason: str
) -> None:
    @workflow
    async def books_wrongly(ctx: Context) -> None:
        async with ctx.saga() as saga:
            saga.compensate(call)

    async with flows.engine(books_wrongly, undo) as engine:
        await engine.client.start(books_wrongly.bind(), id="w")
        assert reason in await flows.blocked("w")
