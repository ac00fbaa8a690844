"""What a client is told when the answer to its commit was lost: 'unknown', until somebody knows."""

import asyncio
from typing import Any

import pytest

from derecho import MemoryStore, outages
from derecho.committer import Committer
from derecho.errors import StoreUnavailable
from derecho.journal.changes import CreateRun, Receipt
from derecho.testing.conformance.kit import message, run_row
from tests.support.wrapped import Gate, wrapped

START = CreateRun(run_row(1), (message("start"),))


async def test_it_stays_unknown_when_all_later_sendings_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PATIENCE", 0.1)
    sendings = 0

    async def commit(original: Any, transitions: Any) -> Any:
        nonlocal sendings
        sendings += 1
        if sendings == 1:
            await original(transitions)
            raise StoreUnavailable("the answer is lost", outcome="unknown")
        raise StoreUnavailable("and now nobody is there")

    store = MemoryStore()
    with pytest.raises(StoreUnavailable) as told:
        await Committer(wrapped(store, commit=commit)).commit((START,))
    assert told.value.outcome == "unknown", "its first sending took effect"
    assert await store.get_run("run-1") is not None
    assert sendings >= 2


async def test_it_is_told_that_nothing_was_done_when_no_sending_did_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "PATIENCE", 0.1)

    async def commit(original: Any, transitions: Any) -> Any:
        raise StoreUnavailable("nobody is there")

    with pytest.raises(StoreUnavailable) as told:
        await Committer(wrapped(MemoryStore(), commit=commit)).commit((START,))
    assert told.value.outcome == "not_applied"


async def test_it_is_acknowledged_when_a_later_sending_finds_it_applied() -> None:
    sendings = 0

    async def commit(original: Any, transitions: Any) -> Any:
        nonlocal sendings
        sendings += 1
        results = await original(transitions)
        if sendings == 1:
            raise StoreUnavailable("the answer is lost", outcome="unknown")
        if sendings == 2:
            raise StoreUnavailable("and now nobody is there")
        return results

    result = await Committer(wrapped(MemoryStore(), commit=commit)).commit((START,))
    assert isinstance(result, Receipt)
    assert result.repeated


async def test_a_caller_that_goes_away_takes_nobody_along() -> None:
    store, gate = MemoryStore(), Gate()
    gate.is_open = False
    committer = Committer(gate.before(store))
    callers = [
        asyncio.create_task(committer.commit((CreateRun(run_row(number), (message("start"),)),))) for number in range(3)
    ]
    while not gate.waiting:  # noqa: ASYNC110
        await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.gather(callers[0], return_exceptions=True)
    gate.is_open = True
    async with asyncio.timeout(20):
        assert await asyncio.gather(*callers[1:]) == [Receipt(), Receipt()]
    assert await store.get_run("run-0") is not None, "its commit was under way and stands"
