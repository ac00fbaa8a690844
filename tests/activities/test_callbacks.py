"""Callbacks: durable promises, tokens that cannot be guessed, one outcome. (G17)"""

import asyncio
from dataclasses import dataclass

import pytest

import derecho
from derecho import CallbackClosed, Client, Context, Store
from derecho.clock import SECOND
from derecho.testing.clock import VirtualClock
from tests.activities.kit import Probe, engine, probe, quiet
from tests.support.world import eventually


@dataclass
class Receipt:
    number: int


class Refused(Exception):
    """The outside's own error."""


@derecho.activity
async def hand_over(token: str) -> None:
    probe().notes.append(token)


@derecho.workflow
async def approval(ctx: Context, timeout: float | None = None) -> Receipt:
    callback = ctx.callback(Receipt, timeout=timeout)
    await hand_over.execute(ctx, callback.token)
    return await callback.future


async def token_of(seen: Probe) -> str:
    token: str = (await eventually(lambda: seen.notes))[0]
    return token


async def test_a_callback_is_completed_from_a_process_without_an_engine(store: Store) -> None:
    seen = Probe()
    async with engine(store, approval, hand_over, probe=seen) as running:
        handle = await running.client.start(approval.bind())
        await Client(store).complete(await token_of(seen), Receipt(7))
        assert await handle.result(timeout=10) == Receipt(7)


async def test_a_callback_fails_with_the_error_that_it_is_given(store: Store) -> None:
    seen = Probe()
    async with engine(store, approval, hand_over, probe=seen) as running:
        handle = await running.client.start(approval.bind())
        await running.client.fail(await token_of(seen), Refused("no"))
        with pytest.raises(derecho.WorkflowFailed) as caught:
            await handle.result(timeout=10)
    assert isinstance(caught.value.__cause__, Refused)


async def test_a_token_survives_restarts(store: Store) -> None:
    """No engine is there when it is completed, and the one that goes on has never seen the run."""
    seen = Probe()
    async with engine(store, approval, hand_over, probe=seen) as running:
        await running.client.start(approval.bind(), id="a")
        token = await token_of(seen)
    await Client(store).complete(token, Receipt(8))
    async with engine(store, approval, hand_over) as running:
        assert await running.client.get(approval, "a").result(timeout=10) == Receipt(8)
        derecho.replay(approval, await running.client.get(approval, "a").history())


async def test_one_of_many_completions_wins_and_the_others_are_told(store: Store) -> None:
    seen = Probe()
    async with engine(store, approval, hand_over, probe=seen) as running:
        handle = await running.client.start(approval.bind())
        token = await token_of(seen)
        clients = [running.client, *(Client(store) for _ in range(7))]
        told = await asyncio.gather(
            *(client.complete(token, Receipt(n)) for n, client in enumerate(clients)), return_exceptions=True
        )
        assert await handle.result(timeout=10) == Receipt(told.index(None))
    assert sum(isinstance(answer, CallbackClosed) for answer in told) == 7


async def test_wrong_and_used_tokens_are_refused_with_the_reason(store: Store) -> None:
    seen = Probe()
    async with engine(store, approval, hand_over, probe=seen) as running:
        handle = await running.client.start(approval.bind())
        token = await token_of(seen)
        run_id, number, secret = token.split(".")
        assert len(secret) == 22, "128 bits"
        for wrong in ("", "x", f"{run_id}.{number}", f"{run_id}.{number}.", f"{run_id}.-1.{secret}", "ü.1.ü"):
            with pytest.raises(CallbackClosed, match=r"is no token|completes nothing"):
                await running.client.complete(wrong, Receipt(1))
        start = f"{run_id}.{number}."
        for wrong in (start + secret[:-1], f"{run_id}.9.{secret}", f"other.{number}.{secret}", token + "ü"):
            with pytest.raises(CallbackClosed, match="completes nothing"):
                await running.client.complete(wrong, Receipt(1))
        await running.client.complete(token, Receipt(1))
        assert await handle.result(timeout=10) == Receipt(1)
        with pytest.raises(CallbackClosed, match="completed before"):
            await running.client.complete(token, Receipt(2))
        with pytest.raises(CallbackClosed, match="completes nothing"):
            await running.client.complete(f"{run_id}.{number}.{secret[:-1]}", Receipt(2))


async def test_a_callback_has_its_timeout(store: Store, clock: VirtualClock) -> None:
    seen = Probe()
    async with engine(store, approval, hand_over, probe=seen) as running:
        handle = await running.client.start(approval.bind(60.0))
        token = await token_of(seen)
        clock.advance(60 * SECOND - 1)
        await quiet()
        assert (await handle.describe()).status == "running", "early"
        clock.advance(1)
        with pytest.raises(derecho.WorkflowFailed, match="ActivityTimeout"):
            await handle.result(timeout=10)
        with pytest.raises(CallbackClosed, match="no longer waits"):
            await running.client.complete(token, Receipt(1))


async def test_a_run_that_waits_for_a_callback_is_not_blocked(store: Store) -> None:
    seen = Probe()
    async with engine(store, approval, hand_over, probe=seen) as running:
        handle = await running.client.start(approval.bind())
        await token_of(seen)
        assert (await handle.describe()).status == "running"


async def test_a_cancelled_callback_takes_nothing(store: Store) -> None:
    @derecho.workflow
    async def changes_its_mind(ctx: Context) -> str:
        callback = ctx.callback(int)
        callback.future.cancel()
        await hand_over.execute(ctx, callback.token)
        return callback.token

    async with engine(store, changes_its_mind, hand_over) as running:
        token = await running.client.run(changes_its_mind.bind())
        with pytest.raises(CallbackClosed, match="no longer waits"):
            await running.client.complete(token, 1)
