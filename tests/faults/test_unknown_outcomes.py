"""What a client is told when the answer to its commit was lost: 'unknown', until somebody knows."""

from typing import Any

import pytest

from derecho import MemoryStore, outages
from derecho.committer import Committer
from derecho.errors import StoreUnavailable
from derecho.journal.changes import CreateRun, Receipt
from derecho.testing.conformance.kit import message, run_row
from tests.support.wrapped import wrapped

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
