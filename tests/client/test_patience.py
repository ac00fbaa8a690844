"""A store that is away for a moment is nobody's business; one that stays away is told in plain words."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from derecho import Client, Context, Handle, Signal, Store, StoreUnavailable, outages, workflow
from derecho.committer import Committer
from tests.support.world import engine_of, eventually
from tests.support.wrapped import Weather, wrapped

go = Signal("go", int)


@workflow
async def waits(ctx: Context) -> int:
    return await ctx.signals(go).receive()


ALL = ["commit", "find_run", "get_run", "load", "list_runs", "workers", "pending", "children", "closed"]
CALLS: dict[str, Callable[[Client, Handle[int]], Coroutine[Any, Any, Any]]] = {
    "start": lambda client, _: client.start(waits.bind(), id="other", if_closed="reject"),
    "signal": lambda _, handle: handle.signal(go, 1),
    "cancel": lambda _, handle: handle.cancel("enough"),
    "terminate": lambda _, handle: handle.terminate("enough"),
    "describe": lambda _, handle: handle.describe(),
    "history": lambda _, handle: handle.history(),
    "list": lambda client, _: _listed(client),
    "replace": lambda client, _: client.start(waits.bind(), id="w", if_running="terminate"),
}


async def _listed(client: Client) -> list[Any]:
    return [run async for run in client.list()]


@pytest.fixture
def weather() -> Weather:
    return Weather(StoreUnavailable("the database is away"))


@pytest.fixture
def stormy(store: Store, weather: Weather) -> Store:
    return wrapped(store, **dict.fromkeys(ALL, weather))


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_waits_until_the_store_is_back(stormy: Store, weather: Weather, call: str) -> None:
    async with Client(stormy) as client:
        handle = await client.start(waits.bind(), id="w")
        weather.bad = True
        calling = asyncio.create_task(CALLS[call](client, handle))
        await eventually(lambda: weather.struck > 2)
        weather.bad = False
        await asyncio.wait_for(calling, 20)


async def test_a_result_is_awaited_through_any_weather(store: Store, stormy: Store, weather: Weather) -> None:
    async with engine_of(store, waits) as engine, Client(stormy) as client:
        await engine.client.start(waits.bind(), id="w")
        weather.bad = True
        result = asyncio.create_task(client.get(waits, "w").result(timeout=20))
        await eventually(lambda: weather.struck > 2)
        await engine.client.get(waits, "w").signal(go, 7)
        weather.bad = False
        assert await result == 7


@pytest.mark.parametrize("call", CALLS)
async def test_in_the_end_a_client_is_told_that_nothing_was_written(
    store: Store, stormy: Store, weather: Weather, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Client(stormy) as client:
        handle = await client.start(waits.bind(), id="w")
        weather.bad = True
        monkeypatch.setattr(outages, "PATIENCE", 0.05)
        with pytest.raises(StoreUnavailable, match=r"the database is away \(tried again for 0.05 s\)") as told:
            await CALLS[call](client, handle)
        assert told.value.outcome == "not_applied"
    assert await store.find_run("other") is None
    assert len((await store.pending(handle.run_id)).messages) == 1


async def test_once_unknown_an_outcome_stays_unknown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later sending that did nothing says nothing of the first."""
    monkeypatch.setattr(outages, "PATIENCE", 1.0)
    sent: list[int] = []

    async def lossy(original: Callable[..., Any], *args: Any) -> Any:
        sent.append(1)
        if len(sent) > 1:
            raise StoreUnavailable("the database is away")
        await original(*args)
        raise StoreUnavailable("the answer was lost", outcome="unknown")

    async with Client(wrapped(store, commit=lossy)) as client:
        with pytest.raises(StoreUnavailable) as told:
            await client.start(waits.bind(), id="w")
    assert told.value.outcome == "unknown"
    assert len(sent) > 1
    assert await store.find_run("w") is not None


async def test_who_stands_behind_the_engines_own_work_is_told_too(
    stormy: Store, weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an engine has to write is repeated for ever; a client of it is not kept for ever."""
    async with engine_of(stormy, waits) as engine:
        await engine.client.start(waits.bind(), id="w")
        weather.bad = True
        engine.submit((), lambda _: None)
        await eventually(lambda: weather.struck > 1)
        monkeypatch.setattr(outages, "PATIENCE", 0.05)
        with pytest.raises(StoreUnavailable, match="the database is away"):
            await asyncio.wait_for(engine.client.start(waits.bind(), id="other"), 20)
        weather.bad = False


async def test_who_still_waits_when_a_client_gives_up_is_told_that_nobody_knows(
    stormy: Store, weather: Weather
) -> None:
    committer = Committer(stormy)
    weather.bad = True
    committing = [asyncio.create_task(committer.commit(())) for _ in range(2)]
    await eventually(lambda: weather.struck > 1)
    committing.append(asyncio.create_task(committer.commit(())))
    await asyncio.sleep(0)
    await committer.close(timeout=0.0)
    for task in committing:
        with pytest.raises(StoreUnavailable, match="closed before the store had answered") as told:
            await asyncio.wait_for(task, 20)
        assert told.value.outcome == "unknown"


async def test_who_submits_something_when_it_is_told_in_vain_takes_nobody_along(
    stormy: Store, weather: Weather
) -> None:
    """A start that is given up gives back what it had claimed, while others stand in the same line."""
    committer = Committer(stormy)
    loop = asyncio.get_running_loop()
    told: list[str] = []
    own: asyncio.Future[object] = loop.create_future()
    behind: asyncio.Future[object] = loop.create_future()

    def given_up(name: str) -> Callable[[object], None]:
        def done(_: object) -> None:
            told.append(name)
            committer.submit((), behind.set_result if name == "second" else lambda _: None)

        return done

    weather.bad = True
    committer.submit((), own.set_result)  # the engine's own work, which is repeated for ever
    await eventually(lambda: weather.struck > 1)
    for name in ("first", "second", "third"):
        committer.submit((), given_up(name), patience=0.0)
    await eventually(lambda: len(told) == 3)
    weather.bad = False
    await asyncio.wait_for(asyncio.gather(own, behind), 20)
    await committer.close(timeout=5.0)
    assert told == ["first", "second", "third"]
