"""Signals, cancel and terminate from outside: taken once, in order, by the open run or its successor, or refused."""

import asyncio
from typing import Any

import pytest

import derecho
from derecho import Client, Context, PayloadError, Signal, Store, WorkflowNotFound, WorkflowTerminated
from tests.support.world import engine_of, eventually

number = Signal("number", int)
go = Signal("go", str)


@derecho.workflow
async def collects(ctx: Context, count: int) -> list[int]:
    return [await ctx.signals(number).receive() for _ in range(count)]


@derecho.workflow
async def in_rounds(ctx: Context, rounds: int, seen: list[int]) -> list[int]:
    """Takes one signal in each run of the chain."""
    seen = [*seen, await ctx.signals(number).receive()]
    if len(seen) < rounds:
        raise ctx.continue_as_new(in_rounds.bind(rounds, seen))
    return seen


async def is_new_run(handle: derecho.Handle[Any], client: Client) -> bool:
    return (await client.get_by_id(handle.id).describe()).run_id != handle.run_id


async def test_signals_of_one_sender_arrive_in_order_each_once(store: Store) -> None:
    async with engine_of(store, collects) as engine, Client(store) as outside:
        handle = await outside.start(collects.bind(200), id="w")
        for n in range(200):
            await (outside if n % 2 else engine.client).get(collects, "w").signal(number, n)
        assert await handle.result(timeout=30) == list(range(200))


async def test_a_signal_that_is_only_named_is_refused_with_what_to_write(store: Store) -> None:
    async with engine_of(store, collects) as engine:
        handle = await engine.client.start(collects.bind(1), id="w")
        with pytest.raises(TypeError, match=r"such as Signal\('number', int\), not by 'number'"):
            await handle.signal("number", 1)  # type: ignore[arg-type]
        await handle.terminate()


async def test_signals_of_many_senders_are_all_taken(store: Store) -> None:
    async with engine_of(store, collects):
        clients = [Client(store) for _ in range(4)]
        handle = await clients[0].start(collects.bind(200), id="w")
        await asyncio.gather(*(clients[n % 4].get(collects, "w").signal(number, n) for n in range(200)))
        assert sorted(await handle.result(timeout=30)) == list(range(200))


async def test_a_key_makes_a_signal_arrive_once_however_often_it_is_sent(store: Store) -> None:
    async with engine_of(store, collects) as engine, Client(store) as outside:
        handle = await engine.client.start(collects.bind(3), id="w")
        for client in (engine.client, outside):
            for _ in range(3):
                await client.get(collects, "w").signal(number, 1, key="a")
        await asyncio.gather(*(handle.signal(number, 2, key="b") for _ in range(5)))
        await handle.signal(number, 1)
        assert await handle.result(timeout=20) == [1, 2, 1]


async def test_a_key_counts_for_the_whole_chain_of_runs(store: Store) -> None:
    async with engine_of(store, in_rounds) as engine:
        handle = await engine.client.start(in_rounds.bind(3, []), id="w")
        for n, key in enumerate(["a", "a", "b", "a", "c"]):
            await engine.client.get_by_id("w").signal(number, n, key=key)
        assert await handle.result(timeout=20) == [0, 2, 4]


async def test_the_handle_of_a_run_reaches_its_successors(store: Store) -> None:
    async with engine_of(store, in_rounds) as engine, Client(store) as outside:
        handle = await outside.start(in_rounds.bind(3, []), id="w")
        await handle.signal(number, 0)
        await eventually(lambda: is_new_run(handle, outside))
        await handle.signal(number, 1)
        await engine.client.get(in_rounds, "w", handle.run_id).signal(number, 2)
        assert await handle.result(timeout=20) == [0, 1, 2]


@pytest.mark.parametrize("ask", ["terminate", "cancel"])
async def test_ends_asked_for_through_the_handle_of_a_run_reach_its_successor(store: Store, ask: str) -> None:
    async with engine_of(store, in_rounds) as engine:
        handle = await engine.client.start(in_rounds.bind(3, []), id="w")
        await handle.signal(number, 0)
        await eventually(lambda: is_new_run(handle, engine.client))
        await getattr(handle, ask)("enough")
        with pytest.raises(derecho.WorkflowError, match="enough"):
            await handle.result(timeout=20)


async def test_no_signal_is_lost_to_a_run_that_ends(store: Store) -> None:
    """Each one is received, or counted as unread by the terminal event, or refused."""
    async with engine_of(store, collects) as engine, Client(store) as outside:
        handle = await engine.client.start(collects.bind(20), id="w")
        refused = 0

        async def send(client: Client, n: int) -> None:
            nonlocal refused
            try:
                await client.get(collects, "w", handle.run_id).signal(number, n)
            except WorkflowNotFound:
                refused += 1

        await asyncio.gather(*(send(outside if n % 2 else engine.client, n) for n in range(60)))
        received = await handle.result(timeout=20)
        last = list(await handle.history())[-1]
    assert len(received) == len(set(received)) == 20
    assert last.get("unread", 0) + refused == 40


@pytest.mark.parametrize("state", ["missing", "closed"])
@pytest.mark.parametrize("ask", ["signal", "cancel"])
async def test_a_message_to_a_missing_or_closed_workflow_is_refused(store: Store, state: str, ask: str) -> None:
    async with Client(store) as client:
        if state == "closed":
            await (await client.start(collects.bind(1), id="w")).terminate()
        handle = client.get(collects, "w")
        why = "it is closed as terminated" if state == "closed" else "there is no open run of this id"
        with pytest.raises(WorkflowNotFound, match=f"workflow 'w' cannot take a message: {why}"):
            await (handle.signal(number, 1) if ask == "signal" else handle.cancel())


async def test_terminating_what_is_closed_is_harmless(store: Store) -> None:
    async with engine_of(store, collects) as engine:
        handle = await engine.client.start(collects.bind(1), signals=[(number, 1)])
        await handle.result(timeout=20)
        await handle.terminate("too late")
        assert await handle.result() == [1]


async def test_racing_terminations_make_one_end(store: Store) -> None:
    clients = [Client(store) for _ in range(4)]
    handle = await clients[0].start(collects.bind(1), id="w")
    await asyncio.gather(*(clients[n % 4].get(collects, "w").terminate(str(n)) for n in range(16)))
    with pytest.raises(WorkflowTerminated):
        await handle.result(timeout=20)
    assert [event["type"] for event in await handle.history()] == ["workflow_terminated"]


async def test_a_signal_that_does_not_fit_is_refused_at_the_call(store: Store) -> None:
    wrong: Any = "seven"
    async with Client(store) as client:
        handle = await client.start(collects.bind(1))
        with pytest.raises(PayloadError, match="signal 'number' cannot be decoded as int: Expected `int`, got `str`"):
            await handle.signal(number, wrong)
        with pytest.raises(PayloadError, match="signal 'number'"):
            await client.start(collects.bind(1), signals=[(number, wrong)])


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "x" * 300], ids=ascii)
async def test_a_key_that_some_store_would_not_keep_is_refused(store: Store, key: str) -> None:
    async with Client(store) as client:
        handle = await client.start(collects.bind(1))
        with pytest.raises(PayloadError, match="signal key"):
            await handle.signal(number, 1, key=key)


@pytest.mark.parametrize("reason", ["", "a\0b", "line\nbreak", "\U0001f600"], ids=ascii)
async def test_any_reason_comes_through(store: Store, reason: str) -> None:
    async with engine_of(store, collects) as engine:
        for ask in ("terminate", "cancel"):
            handle = await engine.client.start(collects.bind(1))
            await getattr(handle, ask)(reason)
            with pytest.raises(derecho.WorkflowError) as caught:
                await handle.result(timeout=20)
            assert getattr(caught.value, "reason", None) == reason


async def test_a_reason_that_nobody_can_store_is_refused(store: Store) -> None:
    async with Client(store) as client:
        handle = await client.start(collects.bind(1))
        for ask in ("terminate", "cancel"):
            with pytest.raises(PayloadError, match="some text cannot be recorded"):
                await getattr(handle, ask)("\ud800")


async def test_an_inbox_takes_so_many_messages_and_says_when_it_is_full(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("derecho.client.INBOX_LIMIT", 3)
    async with Client(store) as client:
        handle = await client.start(collects.bind(1))
        await handle.signal(number, 1)
        await handle.signal(number, 2)
        with pytest.raises(derecho.WorkflowError, match="has 3 unread messages: nothing was sent, try again later"):
            await handle.signal(number, 3)
        await handle.terminate("it still works")
