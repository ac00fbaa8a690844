"""What a handle says of a run: its result, its end, its state; and that looking harms nothing."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

import derecho
from derecho import (
    ActivityFailed,
    Client,
    Context,
    PayloadError,
    Signal,
    Store,
    StoreError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowTerminated,
)
from tests.support.clocks import START, StandingClock
from tests.support.world import engine_of, eventually
from tests.support.wrapped import Gate, wrapped

go = Signal("go", int)


@dataclass
class Receipt:
    cents: int


@dataclass
class Slip:
    euros: str


class Declined(Exception):
    def __init__(self, card: str, code: int) -> None:
        super().__init__(card)
        self.code = code


@derecho.activity(retry=derecho.RetryPolicy.none())
async def charge() -> None:
    raise Declined("visa", 51)


@derecho.workflow
async def pays(ctx: Context) -> Receipt:
    return Receipt(await ctx.signals(go).receive())


@derecho.workflow
async def fails(ctx: Context) -> None:
    try:
        await charge.execute(ctx)
    except Declined as exc:
        exc.add_note("while paying")
        raise


@derecho.workflow_ref("pays")
async def pays_by_slip(ctx: Context) -> Slip:
    raise NotImplementedError


async def test_a_result_has_the_type_that_the_workflow_promises(store: Store) -> None:
    async with engine_of(store, pays) as engine:
        handle = await engine.client.start(pays.bind(), id="w", signals=[(go, 5)])
        assert await handle.result(timeout=20) == Receipt(5)
        assert await engine.client.get(pays, "w").result() == Receipt(5)
        assert await engine.client.get(pays, "w", handle.run_id).result() == Receipt(5)
        assert await engine.client.get_by_id("w").result() == {"cents": 5}


async def test_a_result_that_does_not_fit_the_type_here_is_named(store: Store) -> None:
    async with engine_of(store, pays) as engine:
        await engine.client.start(pays.bind(), id="w", signals=[(go, 5)])
        with pytest.raises(PayloadError, match="the result of workflow 'pays' cannot be decoded as Slip"):
            await engine.client.get(pays_by_slip, "w").result(timeout=20)


async def test_a_failure_has_the_authors_own_error_as_its_cause(store: Store) -> None:
    async with engine_of(store, fails, charge) as engine, Client(store) as outside:
        handle = await engine.client.start(fails.bind(), id="w")
        for seen_by in (handle, outside.get(fails, "w")):
            with pytest.raises(WorkflowFailed, match="workflow 'w' failed: Declined: visa") as caught:
                await seen_by.result(timeout=20)
            error, cause = caught.value, caught.value.__cause__
            assert (error.workflow_id, error.run_id, error.type_name) == ("w", handle.run_id, f"{__name__}:Declined")
            assert "test_results.py" in error.remote_traceback
            assert isinstance(cause, Declined)
            assert (cause.args, cause.code, cause.__notes__) == (("visa",), 51, ["while paying"])
            assert isinstance(cause.__cause__, ActivityFailed)


async def test_waiting_for_so_long_and_no_longer_does_nothing_to_the_run(store: Store) -> None:
    async with engine_of(store, pays) as engine:
        handle = await engine.client.start(pays.bind(), id="w")
        with pytest.raises(TimeoutError, match=r"workflow 'w' has no result after 0\.01 s\. It goes on"):
            await handle.result(timeout=0.01)
        assert (await handle.describe()).status == "running"
        await handle.signal(go, 5)
        assert await handle.result(timeout=20) == Receipt(5)


async def test_who_waits_in_vain_for_a_blocked_run_is_told_what_blocks_it(store: Store) -> None:
    @derecho.workflow
    async def misspelt(ctx: Context) -> None:
        raise NameError("name 'nubmer' is not defined")

    async with engine_of(store, misspelt) as engine, Client(store) as outside:
        await engine.client.start(misspelt.bind(), id="w")
        await eventually(lambda: is_blocked(engine.client, "w"))
        for client in (engine.client, outside):
            with pytest.raises(TimeoutError, match=r"It is blocked, .*NameError: name 'nubmer' is not defined"):
                await client.get(misspelt, "w").result(timeout=0.01)


async def is_blocked(client: Client, id: str) -> bool:
    return (await client.get_by_id(id).describe()).status == "blocked"


async def test_many_may_wait_from_everywhere_and_one_may_stop(store: Store) -> None:
    async with engine_of(store, pays) as engine, Client(store) as outside:
        handle = await engine.client.start(pays.bind(), id="w")
        waiting = [
            asyncio.create_task(client.get(pays, "w").result(timeout=20))
            for client in (engine.client, outside)
            for _ in range(5)
        ]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await handle.signal(go, 5)
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [Receipt(5)] * 9


@pytest.mark.parametrize("when", ["while he looks", "while he waits"])
async def test_who_waits_when_the_client_is_closed_is_told(store: Store, when: str) -> None:
    gate = Gate()
    client = Client(wrapped(store, get_run=gate))
    handle = await client.start(pays.bind())
    gate.is_open = when == "while he waits"
    waiting = asyncio.create_task(handle.result(timeout=20))
    if when == "while he looks":
        await eventually(lambda: gate.waiting)
    elif when == "while he waits":
        await eventually(lambda: client._watcher._waiting)
    await client.close()
    gate.is_open = True
    with pytest.raises(StoreError, match="the client was closed while a result was awaited"):
        await waiting


ASKS = ["result", "describe", "history", "terminate", "cancel", "signal"]


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("which", ["unknown id", "unknown run", "another id's run"])
async def test_a_run_that_does_not_exist_is_not_found(store: Store, ask: str, which: str) -> None:
    async with Client(store) as client:
        other = await client.start(pays.bind(), id="w")
        handle = {
            "unknown id": client.get_by_id("nobody"),
            "unknown run": client.get_by_id("w", "no-such-run"),
            "another id's run": client.get_by_id("nobody", other.run_id),
        }[which]
        with pytest.raises(WorkflowNotFound) as caught:
            await (handle.signal(go, 1) if ask == "signal" else getattr(handle, ask)())
        assert caught.value.workflow_id == handle.id
        assert repr(handle.id) in str(caught.value)
        assert (await other.describe()).status == "running"
        assert len((await store.pending(other.run_id)).messages) == 1


async def test_describe_says_what_a_run_is(store: Store, clock: StandingClock) -> None:
    async with engine_of(store, pays) as engine:
        handle = await engine.client.start(pays.bind(), id="w")
        run = await handle.describe()
        at = datetime.fromtimestamp(START / 1_000_000, UTC)
        assert run[:5] == ("w", handle.run_id, "pays", "running", at)
        clock.advance(60)
        await handle.signal(go, 1)
        await handle.result(timeout=20)
        run = await handle.describe()
        assert run.closed_at is not None
        assert (run.status, (run.closed_at - run.started_at).total_seconds(), run.blocked_reason) == (
            "completed",
            60,
            None,
        )


async def test_a_handle_without_a_run_follows_the_newest_and_one_with_stays(store: Store) -> None:
    async with Client(store) as client:
        first = await client.start(pays.bind(), id="w")
        await first.terminate("wrong")
        second = await client.start(pays.bind(), id="w")
        latest = client.get(pays, "w")
        assert latest.run_id == ""
        assert (await latest.describe()).run_id == second.run_id
        assert (await first.describe()).status == "terminated"
        with pytest.raises(WorkflowTerminated, match="wrong"):
            await first.result()


async def test_a_cancelled_run_says_so_with_the_reason(store: Store) -> None:
    async with engine_of(store, pays) as engine:
        handle = await engine.client.start(pays.bind(), id="w")
        await handle.cancel("changed my mind")
        with pytest.raises(WorkflowCancelled, match="workflow 'w' was cancelled: changed my mind") as caught:
            await handle.result(timeout=20)
        assert caught.value.reason == "changed my mind"
        assert (await handle.describe()).status == "cancelled"


async def test_a_run_that_will_not_end_is_closed_by_force_after_the_limit(store: Store, clock: StandingClock) -> None:
    @derecho.workflow
    async def stubborn(ctx: Context) -> None:
        async with ctx.shield():
            await ctx.signals(go).receive()

    async def is_cancelling() -> bool:
        row = await store.find_run("w")
        return row is not None and row.status == "cancelling" and bool((await store.pending(row.run_id)).timers)

    async with engine_of(store, stubborn) as engine:
        handle = await engine.client.start(stubborn.bind(), id="w")
        await handle.cancel("enough", timeout=60)
        await eventually(is_cancelling)
        clock.advance(60)
        with pytest.raises(WorkflowCancelled, match="enough"):
            await handle.result(timeout=20)
        last: dict[str, Any] = list(await handle.history())[-1]
    assert (last["type"], last["fibers_left"]) == ("workflow_cancelled", 1)
