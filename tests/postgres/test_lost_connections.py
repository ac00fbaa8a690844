"""Connections end at every statement, before or after it took effect; each transition is applied exactly once."""

import asyncio
import contextlib
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import derecho
from derecho import Client, Engine, PostgresStore
from derecho.committer import Committer
from derecho.errors import StoreUnavailable
from derecho.journal.changes import Change, CreateRun, Deliver, Receipt, Result
from derecho.journal.store import Store
from derecho.stores.postgres import connections, hosts
from derecho.testing.conformance.kit import advance, message, run_row
from tests.postgres.load import GO, Load, double, order
from tests.postgres.proxy import FATAL, Proxy, Where, writes
from tests.support.schemas import Janitor
from tests.support.wrapped import wrapped

CUTS = int(os.environ.get("DERECHO_CUTS", "208"))
WAYS: dict[Where, float] = {"before": 0.44, "after": 0.44, "silent_before": 0.06, "silent_after": 0.06}
"""What is done to connections, and its share of the cuts: silence takes long."""
ERRORS = ["40001", "40P01", "53300", "55P03", "57014", "57P01", "57P02", "57P03", "08006", "25006", "25P03", "58030"]


def through(proxy: Proxy, url: str) -> str:
    query = parse_qs(urlsplit(url).query)
    return (
        f"postgresql://derecho@127.0.0.1:{proxy.port}/postgres?sslmode=disable&schema={query['schema'][0]}&durable=off"
    )


def socket_of(url: str) -> str:
    return f"{parse_qs(urlsplit(url).query)['host'][0]}/.s.PGSQL.5432"


def once(where: Where, fits: Callable[[str], bool]) -> Callable[[str], Where | None]:
    """Strike the next statement that fits."""
    left = [where]
    return lambda sql: left.pop() if left and fits(sql) else None


def counted(store: Store) -> tuple[Store, Counter[str]]:
    """The store, and how its commits ended."""
    counts: Counter[str] = Counter()

    async def commit(original: Any, transitions: Any) -> Any:
        try:
            results = await original(transitions)
        except StoreUnavailable as exc:
            counts[exc.outcome] += 1
            raise
        counts["ok"] += 1
        return results

    return wrapped(store, commit=commit), counts


async def persist(committer: Committer, change: Change) -> Result:
    """Commit as an engine does: again and again."""
    while True:
        try:
            return await committer.commit((change,))
        except StoreUnavailable as exc:
            if exc.outcome == "unknown":
                raise  # the committer repeats that by itself


@pytest.mark.parametrize("where", WAYS)
@pytest.mark.parametrize("prepared", ["on", "off"])
async def test_a_connection_that_is_lost_anywhere_applies_a_commit_once(
    empty_schema_url: str, where: Where, prepared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(f"{where} {prepared}")
    planned = math.ceil(CUTS * WAYS[where] / 2)
    lanes = 1
    if where.startswith("silent"):  # each waits for as long as we are patient, so they wait side by side
        monkeypatch.setattr(connections, "PATIENCE", 0.5)
        lanes = min(planned, 8)
    struck, counts = Counter[str](), Counter[str]()

    async def lane(numbers: range) -> None:
        async with Proxy(socket_of(empty_schema_url)) as proxy:
            inner = PostgresStore(through(proxy, empty_schema_url) + f"&prepared={prepared}")
            store, ends = counted(inner)
            for number in numbers:
                skipped = iter([False] * chance.randrange(1 if prepared == "on" else 4))
                anywhere = lambda sql, skipped=skipped: next(skipped, True)  # noqa: E731  # a default binds it
                await cut_one(proxy, store, number, once(where, writes if number % 2 == 0 else anywhere))
            await store.close()
        struck.update(proxy.struck)
        counts.update(ends)

    await asyncio.gather(*(lane(range(first, planned + 1, lanes)) for first in range(1, lanes + 1)))
    print(f"planned {planned}, struck {dict(struck)}; commits {dict(counts)}")
    assert struck[where] >= planned
    assert struck["write"] >= 0.2 * planned
    assert counts["unknown"] >= 0.2 * planned, "a connection that is lost in a commit leaves its outcome unknown"
    assert counts["ok"] >= 2 * planned


async def cut_one(proxy: Proxy, store: Store, number: int, strike: Callable[[str], Where | None]) -> None:
    """A run, whose first task and a signal are committed while the connection is struck once: both are there, once."""
    committer, run_id = Committer(store), f"run-{number}"
    await committer.commit((CreateRun(run_row(number), (message("start"),)),))
    proxy.strike = strike
    results = await asyncio.gather(
        persist(committer, advance(run_id, consume_to=1)),
        persist(committer, Deliver(message("signal", "key"), run_id=run_id)),
    )
    assert all(isinstance(result, Receipt) for result in results), results
    run = await store.get_run(run_id)
    assert run is not None
    assert (run.tasks, run.inbox_last, len((await store.load([run_id]))[run_id])) == (1, 2, 1)


async def test_an_answer_that_is_lost_leaves_the_outcome_unknown(empty_schema_url: str) -> None:
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        store = PostgresStore(through(proxy, empty_schema_url))
        await store.commit([(CreateRun(run_row(1), (message("start"),)),)])
        proxy.strike = once("after", writes)
        with pytest.raises(StoreUnavailable) as lost:
            await store.commit([(advance(),)])
        assert lost.value.outcome == "unknown"
        (result,) = await store.commit([(advance(),)])
        assert isinstance(result, Receipt)
        assert result.repeated
        await store.close()


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_client_whose_answer_is_lost_starts_one_run_and_sends_one_signal(
    empty_schema_url: str, where: Where
) -> None:
    """Nor is it told that its own id is taken."""
    async with Proxy(socket_of(empty_schema_url)) as proxy, Client(through(proxy, empty_schema_url)) as client:
        for number in range(10):
            proxy.strike = once(where, writes)
            handle = await client.start(order.bind(number), id=f"w{number}")
            proxy.strike = once(where, writes)
            await handle.signal(GO, number)
            run = await client.store.get_run(handle.run_id)
            assert run is not None
            assert run.inbox_last == 2
        assert len([run async for run in client.list()]) == 10
        assert proxy.struck == {where: 20, "write": 20}


@pytest.mark.parametrize("state", ERRORS)
async def test_an_error_that_may_pass_is_told_as_one_and_the_commit_can_be_done_again(
    empty_schema_url: str, state: str
) -> None:
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        store = PostgresStore(through(proxy, empty_schema_url))
        await store.commit([(CreateRun(run_row(1), (message("start"),)),)])
        proxy.sqlstate, proxy.strike = state, once("refused", writes)
        if state in ("40001", "40P01"):
            assert await store.commit([(advance(),)]) == [Receipt()], "the store does that again by itself"
        else:
            with pytest.raises(StoreUnavailable) as told:
                await store.commit([(advance(),)])
            assert told.value.outcome == ("unknown" if state.startswith(FATAL) else "not_applied")
            assert await store.commit([(advance(),)]) == [Receipt()]
        assert proxy.struck["refused"] == 1
        await store.close()


@pytest.mark.parametrize("silent", ["pg_control_system", "fsync"], ids=["new connection", "first statement"])
async def test_a_server_that_accepts_and_never_answers_is_given_up(
    empty_schema_url: str, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "CONNECT_TIMEOUT", 0.3)
    monkeypatch.setattr(connections, "PATIENCE", 0.3)
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        store = PostgresStore(through(proxy, empty_schema_url))
        proxy.strike = once("silent_before", lambda sql: silent in sql)
        with contextlib.suppress(StoreUnavailable):  # or it has found that another connection is better
            await asyncio.wait_for(store.open(), 30)
        await asyncio.wait_for(store.open(), 30)
        assert proxy.struck["silent_before"] == 1
        await store.close()


async def test_user_code_sees_nothing_of_a_server_that_says_no_in_every_way(
    empty_schema_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each statement of an engine is refused with some probability, by each class of errors that may pass."""
    chance = random.Random(3)
    said: Counter[str] = Counter()
    async with Proxy(socket_of(empty_schema_url)) as proxy:

        def strike(sql: str) -> Where | None:
            if chance.random() > (0.5 if writes(sql) else 0.05):
                return None
            proxy.sqlstate = min(ERRORS, key=lambda state: said[state])
            said[proxy.sqlstate] += 1
            return "refused"

        engine = Engine(through(proxy, empty_schema_url), workflows=[order], activities=[double])
        async with engine, Client(empty_schema_url) as client:
            load = Load(client)
            proxy.strike = strike
            async with load.running():
                while min(said[state] for state in ERRORS) < 3:
                    await load.progress(5)
            proxy.strike = lambda sql: None
            load.faults = Counter(fired=said.total(), landed=said.total())
            await load.check(3 * len(ERRORS))
    print(f"refused {dict(said)}, while writing {proxy.struck['write']}")
    assert "is blocked" not in caplog.text, "the trouble was the server's, not the run's"
    assert proxy.struck["write"] >= 0.1 * said.total()


async def test_an_engine_goes_on_when_all_its_sessions_are_ended_again_and_again(
    empty_schema_url: str, janitor: Janitor
) -> None:
    ended = 0
    count = 40
    async with (
        Engine(empty_schema_url, workflows=[order], activities=[double]) as engine,
        Client(empty_schema_url) as client,
    ):
        results: list[Any] = []
        for number in range(count):
            handle = await client.start(order.bind(number), id=f"w{number}")
            await handle.signal(GO, number)
            results.append(asyncio.create_task(handle.result(timeout=60)))
            if number % 4 == 3:
                gone = janitor.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'derecho'"
                )
                ended += len(gone)
        assert await asyncio.gather(*results) == [4 * number for number in range(count)]
        for number in range(count):
            history = await client.get(order, f"w{number}").history()
            derecho.replay(order, history)
            assert sum(event["type"] == "activity_completed" for event in history) == 2
        assert engine.incarnation
    assert ended >= 20, f"only {ended} sessions were ended"
