"""A run that nobody can go on with is blocked with its reason, hurts nobody, and goes on when the cause is gone."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import derecho
from derecho import Client, Context, Handle, Signal, Store, WorkflowCancelled, WorkflowTerminated
from derecho.clock import SECOND
from derecho.workflow import WorkflowDefinition
from tests.support.clocks import StandingClock
from tests.support.world import engine_of, eventually

go = Signal("go", int)
go_as_text = Signal("go", str)


@derecho.activity
async def charge() -> str:
    return "charged"


@derecho.activity
async def refund() -> str:
    return "refunded"


def order_workflow(code: Callable[[Context], Awaitable[str]]) -> derecho.Workflow[[], str]:
    return derecho.workflow("order")(code)


@order_workflow
async def order(ctx: Context) -> str:
    await charge.execute(ctx)
    number = await ctx.signals(go).receive()
    return f"done {number}"


@order_workflow
async def other_order(ctx: Context) -> str:
    await refund.execute(ctx)
    return "other"


@order_workflow
async def misspelt(ctx: Context) -> str:
    await charge.execute(ctx)
    await ctx.signals(go).receive()
    raise NameError("name 'nubmer' is not defined")


@order_workflow
async def reads_text(ctx: Context) -> str:
    await charge.execute(ctx)
    return f"done {await ctx.signals(go_as_text).receive()}"


@derecho.workflow
async def healthy(ctx: Context) -> str:
    return await charge.execute(ctx)


async def status(handle: Handle[Any]) -> str:
    return (await handle.describe()).status


async def blocked(handle: Handle[Any]) -> str:
    """Why the run is blocked, as soon as it is."""

    async def reason() -> str | None:
        run = await handle.describe()
        return run.blocked_reason if run.status == "blocked" else None

    return str(await eventually(reason))


async def started(store: Store) -> None:
    """A run that has charged and waits for its signal, and no engine."""

    async def has_charged() -> bool:
        row = await store.find_run("w")
        return row is not None and row.tasks == 2 and row.claim is None

    async with engine_of(store, order, charge) as engine:
        await engine.client.start(order.bind(), id="w")
        await eventually(has_charged)


async def test_a_type_that_nobody_serves_is_shown_and_goes_on_when_somebody_does(store: Store) -> None:
    async with Client(store) as client, engine_of(store, healthy, charge) as engine:
        handle = await client.start(order.bind(), id="w", signals=[(go, 1)])
        assert await blocked(handle) == "no running engine has workflow type 'order': start one that registers it"
        assert await engine.client.run(healthy.bind()) == "charged"
        assert len(await handle.history()) == 0
        async with engine_of(store, order, charge):
            assert await handle.result(timeout=20) == "done 1"


async def test_an_activity_that_nobody_serves_is_shown_and_runs_when_somebody_does(store: Store) -> None:
    async with engine_of(store, order) as engine:
        handle = await engine.client.start(order.bind(), id="w", signals=[(go, 1)])
        assert await blocked(handle) == "no running engine has activity 'charge': start one that registers it"
        async with engine_of(store, charge):
            assert await handle.result(timeout=20) == "done 1"


async def test_a_type_registered_while_the_engine_runs_is_taken_up(store: Store) -> None:
    async with engine_of(store, healthy, charge) as engine:
        handle = await engine.client.start(order.bind(), id="w", signals=[(go, 1)])
        await blocked(handle)
        engine.register_workflow(order)
        assert await handle.result(timeout=20) == "done 1"


BREAKS = [
    (other_order, "the code no longer does what history records at event 3"),
    (misspelt, "NameError: name 'nubmer' is not defined"),
    (reads_text, "signal 'go' cannot be decoded as str"),
]


@pytest.mark.parametrize(("broken", "reason"), BREAKS, ids=["nondeterminism", "slip", "undecodable"])
async def test_broken_code_blocks_its_runs_and_no_others_and_fixed_code_goes_on(
    store: Store, clock: StandingClock, broken: WorkflowDefinition, reason: str
) -> None:
    await started(store)
    async with engine_of(store, broken, healthy, charge, refund) as engine:
        handle = engine.client.get(order, "w")
        await handle.signal(go, 7)
        assert reason in await blocked(handle)
        events = len(await handle.history())
        for _ in range(3):
            assert await engine.client.run(healthy.bind()) == "charged"
            clock.advance(600)  # it is tried again, in vain
        assert await status(handle) == "blocked"
        assert len(await handle.history()) == events
    clock.advance(600)
    async with engine_of(store, order, charge) as engine:
        assert await engine.client.get(order, "w").result(timeout=20) == "done 7"


async def test_a_new_engine_tries_blocked_runs_at_once_because_it_may_bring_the_fix(store: Store) -> None:
    """The clock stands: the instant of the next try never comes."""
    ids = [f"w{number}" for number in range(120)]
    async with engine_of(store, misspelt, charge) as engine:
        for handle in await engine.client.start_many([(id, order.bind()) for id in ids]):
            await handle.signal(go, 7)
        for id in ids:
            await blocked(engine.client.get(order, id))
    async with engine_of(store, order, charge) as engine:
        for id in ids:
            assert await engine.client.get(order, id).result(timeout=20) == "done 7"


async def test_a_blocked_run_is_tried_again_later_and_later(
    store: Store, clock: StandingClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try is logged, with its traceback when the reason is a new one."""
    tries: list[int] = []

    @order_workflow
    async def counts(ctx: Context) -> str:
        tries.append(1)
        raise NameError("n")

    async def blocked_so_often() -> bool:
        row = await store.find_run("w")
        return row is not None and row.blocked_count == len(pauses) + 1

    pauses: list[int] = []
    async with engine_of(store, counts) as engine:
        await engine.client.start(order.bind(), id="w")
        while len(pauses) < 12:
            await eventually(blocked_so_often)
            row = await store.find_run("w")
            assert row is not None
            assert row.ready_at is not None
            pauses.append((row.ready_at - clock.now()) // SECOND)
            clock.advance(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    assert len(tries) >= 12
    logged = [record for record in caplog.records if "workflow 'w' is blocked: NameError: n" in record.message]
    assert len(logged) >= 12
    assert [record.exc_info is not None for record in logged] == [True] + [False] * (len(logged) - 1)


async def test_a_blocked_run_is_tried_again_at_its_instant_without_any_hint(tmp_path: Path) -> None:
    calls: list[int] = []

    @derecho.workflow
    async def mended(ctx: Context) -> str:
        calls.append(1)
        if len(calls) == 1:
            raise NameError("name 'nubmer' is not defined")
        return "done"

    engine = engine_of(derecho.SQLiteStore(tmp_path / "derecho.db"), mended)
    engine.poll_interval = 1e4
    async with engine:
        assert await (await engine.client.start(mended.bind())).result(timeout=20) == "done"
    assert len(calls) == 2
    await engine.store.close()


async def test_a_text_that_cannot_be_recorded_blocks_its_run_alone(store: Store) -> None:
    @derecho.workflow
    async def labels(ctx: Context) -> None:
        await ctx.sleep(60, summary="\ud800")

    async with engine_of(store, labels, healthy, charge) as engine:
        handle = await engine.client.start(labels.bind())
        assert "some text cannot be recorded" in await blocked(handle)
        assert await engine.client.run(healthy.bind()) == "charged"


async def test_a_blocked_run_takes_signals_and_a_cancel(store: Store, clock: StandingClock) -> None:
    await started(store)
    async with engine_of(store, other_order, charge, refund) as engine:
        handle = engine.client.get(order, "w")
        await handle.signal(go, 1)
        await blocked(handle)
        await handle.signal(go, 2)
        await handle.cancel("enough")
    clock.advance(600)
    async with engine_of(store, order, charge) as engine:
        with pytest.raises(WorkflowCancelled, match="enough"):
            await engine.client.get(order, "w").result(timeout=20)
        types = [event["type"] for event in await engine.client.get(order, "w").history()]
    assert types[-5:] == [
        "signal_received",
        "signal_received",
        "cancel_requested",
        "workflow_task_completed",
        "workflow_cancelled",
    ]


async def test_a_blocked_run_is_terminated_at_once(store: Store) -> None:
    async with engine_of(store, misspelt, charge) as engine:
        handle = await engine.client.start(order.bind(), id="w", signals=[(go, 1)])
        await blocked(handle)
        await handle.terminate("give up")
        with pytest.raises(WorkflowTerminated, match="give up"):
            await handle.result(timeout=20)
        assert await status(handle) == "terminated"


async def test_a_turn_that_no_database_can_keep_blocks_its_run_instead_of_being_tried_for_ever(store: Store) -> None:
    tries = 0
    queue = derecho.Queue("spoilt")
    queue.name = "a\0b"

    @derecho.workflow
    async def unstorable(ctx: Context) -> None:
        nonlocal tries
        tries += 1
        await ctx.execute(charge.bind(), queue=queue)

    async with engine_of(store, unstorable, charge) as engine:
        handle = await engine.client.start(unstorable.bind())
        assert "the store cannot keep what this turn asks for: a NUL character" in await blocked(handle)
    assert tries <= 2, "with its start, and alone"
