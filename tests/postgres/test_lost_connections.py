"""Connections end at every statement, before or after it took effect; each transition is applied exactly once."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import derecho
from derecho import Client, Context, Engine, PostgresStore, Signal
from derecho.committer import Committer
from derecho.errors import StoreUnavailable
from derecho.journal.changes import Change, CreateRun, Deliver, Receipt, Result
from derecho.testing.conformance.kit import advance, message, run_row
from tests.postgres.proxy import Proxy, Where
from tests.support.audits import assert_sound
from tests.support.schemas import Janitor

GO = Signal("go", int)


@derecho.activity
async def double(n: int) -> int:
    return 2 * n


@derecho.workflow
async def order(ctx: Context, n: int) -> int:
    first = await double.execute(ctx, n)
    await ctx.sleep(0.01)
    return first + await double.execute(ctx, await ctx.signals(GO).receive())


def through(proxy: Proxy, url: str) -> str:
    query = parse_qs(urlsplit(url).query)
    return (
        f"postgresql://derecho@127.0.0.1:{proxy.port}/postgres?sslmode=disable&schema={query['schema'][0]}&durable=off"
    )


def socket_of(url: str) -> str:
    return f"{parse_qs(urlsplit(url).query)['host'][0]}/.s.PGSQL.5432"


async def persist(committer: Committer, change: Change) -> Result:
    """Commit as an engine does: again and again."""
    while True:
        try:
            return await committer.commit((change,))
        except StoreUnavailable as exc:
            if exc.outcome == "unknown":
                raise  # the committer repeats that by itself


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("prepared", ["on", "off"])
async def test_a_connection_that_is_cut_anywhere_applies_a_commit_once(
    empty_schema_url: str, where: Where, prepared: str
) -> None:
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        store = PostgresStore(through(proxy, empty_schema_url) + f"&prepared={prepared}")
        await store.open()
        proxy.where = where
        landed = rounds = 0
        for number in range(1, 61):
            committer = Committer(store)
            await committer.commit((CreateRun(run_row(number), (message("start"),)),))
            begin = proxy.statements
            proxy.cut_at = begin + 1 + rounds % (4 if prepared == "on" else 12)
            before = proxy.cuts
            run_id = f"run-{number}"
            results = await asyncio.gather(
                persist(committer, advance(run_id, consume_to=1)),
                persist(committer, Deliver(message("signal", "key"), run_id=run_id)),
            )
            assert all(isinstance(result, Receipt) for result in results), results
            proxy.cut_at = -1
            run = await store.get_run(run_id)
            assert run is not None
            assert (run.tasks, run.inbox_last, len(await store.load(run_id))) == (1, 2, 1)
            rounds += 1
            landed += proxy.cuts - before
        assert landed >= 25, f"only {landed} of {rounds} cuts landed"
        await store.close()


async def test_an_answer_that_is_lost_leaves_the_outcome_unknown(empty_schema_url: str) -> None:
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        store = PostgresStore(through(proxy, empty_schema_url))
        await store.open()
        await store.commit([(CreateRun(run_row(1), (message("start"),)),)])
        proxy.where, proxy.cut_at = "after", proxy.statements + 2
        with pytest.raises(StoreUnavailable) as lost:
            await store.commit([(advance(),)])
        assert lost.value.outcome == "unknown"
        (result,) = await store.commit([(advance(),)])
        assert isinstance(result, Receipt)
        assert result.repeated
        await store.close()


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
        await assert_sound(client.store)
        assert engine.incarnation
    assert ended >= 20, f"only {ended} sessions were ended"
