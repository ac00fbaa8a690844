"""Engines hear at once what happens elsewhere; when they do not hear, they find it all the same."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from derecho import Client, Context, Engine, PostgresStore, Signal, workflow
from derecho.clock import FOREVER, SECOND
from derecho.journal.changes import CreateRun, DropTimer, ScheduleTimer
from derecho.journal.model import TimerRow
from derecho.stores.postgres import notices
from derecho.testing.conformance.kit import message, run_row
from tests.postgres.proxy import Proxy, writes
from tests.postgres.test_lost_connections import once, socket_of, through
from tests.support.schemas import Janitor
from tests.support.world import eventually

go = Signal("go", int)
HOURS = 10_000.0
LISTENS = "query LIKE 'LISTEN%' AND application_name = 'derecho'"


@workflow
async def waits(ctx: Context) -> int:
    await ctx.sleep(0.01)
    return await ctx.signals(go).receive()


@workflow
async def ends(ctx: Context) -> int:
    return 7


@pytest.fixture
async def store(empty_schema_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(empty_schema_url)
    yield store
    await store.close()


@pytest.fixture
async def elsewhere(empty_schema_url: str) -> AsyncIterator[PostgresStore]:
    """The same schema through connections of its own, as another process has it."""
    store = PostgresStore(empty_schema_url)
    yield store
    await store.close()


def engine_that_looks_every(seconds: float, store: PostgresStore) -> Engine:
    engine = Engine(store, workflows=[waits, ends], shutdown_timeout=0)
    engine.poll_interval = seconds
    return engine


async def signalled(store: PostgresStore, id: str) -> int:
    """Start a workflow, let it fall asleep, wake it by a signal."""
    async with Client(store) as client:
        handle = await client.start(waits.bind(), id=id)

        async def is_asleep() -> bool:
            row = await store.find_run(id)
            return row is not None and row.tasks == 2 and row.claim is None

        await eventually(is_asleep)
        await handle.signal(go, 7)
        return await handle.result(timeout=30)


async def test_a_sleeping_engine_hears_of_a_start_and_a_signal_elsewhere(
    store: PostgresStore, elsewhere: PostgresStore
) -> None:
    async with engine_that_looks_every(HOURS, store):
        await eventually(lambda: store._notices.listening)
        assert await signalled(elsewhere, "w") == 7


async def test_an_engine_hears_of_a_start_by_a_script_that_ends_at_once(
    store: PostgresStore, elsewhere: PostgresStore
) -> None:
    async with engine_that_looks_every(HOURS, store) as engine:
        await eventually(lambda: store._notices.listening)
        async with Client(elsewhere) as script:
            handle = await script.start(ends.bind(), id="w")
            await elsewhere.close()
        assert await engine.client.get(ends, "w", handle.run_id).result(timeout=20) == 7


async def started(store: PostgresStore, id: str) -> str:
    handle = await Client(store).start(ends.bind(), id=id)
    return handle.run_id


def start_elsewhere(store: PostgresStore, id: str) -> str:
    """In a loop of its own, which ends without closing anything."""
    return asyncio.run(started(store, id))


async def test_an_engine_hears_of_starts_from_any_loop_of_a_process(
    store: PostgresStore, elsewhere: PostgresStore
) -> None:
    await elsewhere.open()  # its connections belong to this loop
    async with engine_that_looks_every(HOURS, store) as engine:
        await eventually(lambda: store._notices.listening)
        for id in ("w1", "w2"):
            run_id = await asyncio.to_thread(start_elsewhere, elsewhere, id)
            assert await engine.client.get(ends, id, run_id).result(timeout=20) == 7


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_engine_hears_of_starts_by_a_program_that_closes_nothing(
    store: PostgresStore, empty_schema_url: str
) -> None:
    never_closed = PostgresStore(empty_schema_url)
    async with engine_that_looks_every(HOURS, store) as engine:
        await eventually(lambda: store._notices.listening)
        for id in ("w1", "w2"):
            run_id = await asyncio.to_thread(start_elsewhere, never_closed, id)
            assert await engine.client.get(ends, id, run_id).result(timeout=20) == 7
    del never_closed
    gc.collect()  # its connections are reported here, and not in another test


async def test_an_engine_hears_of_a_start_whose_answer_was_lost(store: PostgresStore, empty_schema_url: str) -> None:
    async with engine_that_looks_every(HOURS, store) as engine, Proxy(socket_of(empty_schema_url)) as proxy:
        await eventually(lambda: store._notices.listening)
        async with Client(through(proxy, empty_schema_url)) as client:
            proxy.strike = once("after", writes)
            handle = await client.start(ends.bind(), id="w")
            assert proxy.struck["after"] == 1
            assert await engine.client.get(ends, "w", handle.run_id).result(timeout=20) == 7


async def test_a_store_with_something_to_tell_is_closed_soon_though_the_server_is_silent(
    empty_schema_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_AT_MOST", 0.05)
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        store = PostgresStore(through(proxy, empty_schema_url))
        await started(store, "w")
        proxy.strike = once("silent_before", lambda sql: True)
        async with asyncio.timeout(20):  # a connection that is silent is given up after 35 s
            await store.close()
        assert proxy.struck["silent_before"] == 1


async def test_an_engine_finds_what_it_did_not_hear_of(store: PostgresStore, elsewhere: PostgresStore) -> None:
    elsewhere._notices.tell = lambda topics: None  # type: ignore[method-assign]  # notifications are lost
    async with engine_that_looks_every(0.2, store):
        await eventually(lambda: store._notices.listening)
        assert await signalled(elsewhere, "w") == 7


async def test_an_engine_whose_listening_connection_was_lost_listens_again_and_missed_nothing(
    store: PostgresStore, elsewhere: PostgresStore, janitor: Janitor
) -> None:
    async with engine_that_looks_every(HOURS, store):
        for number in range(3):
            await eventually(lambda: store._notices.listening)
            ended = janitor.fetch(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {LISTENS}")
            assert len(ended) >= 1
            assert await signalled(elsewhere, f"w{number}") == 7


async def test_what_happens_at_once_is_told_in_one_notification(elsewhere: PostgresStore, postgres_url: str) -> None:
    """NOTIFY takes a lock of the whole server, so there is not one for each commit."""
    told: list[str] = []
    channel = elsewhere._notices._channel
    listening: Any = await asyncpg.connect(postgres_url)
    await listening.add_listener(channel, lambda *heard: told.append(heard[3]))
    await elsewhere.open()
    for _ in range(50):
        elsewhere._touched({"runs"})
        elsewhere._touched({"activities"})
    await eventually(lambda: not elsewhere._notices._tasks)
    await listening.execute(f"NOTIFY {channel}, 'the end'")
    await eventually(lambda: "the end" in told)
    await listening.close()
    assert [set(text.split()[1:]) for text in told] == [{"runs", "activities"}, {"end"}]


def test_the_longest_name_of_a_schema_makes_a_channel() -> None:
    assert len(PostgresStore(f"postgresql://localhost/db?schema={'s' * 56}")._notices._channel) <= 63


async def test_a_timer_that_is_set_while_a_look_is_on_its_way_is_told(store: PostgresStore) -> None:
    """It is not in the look's answer, and the look before knew of a sooner one, which is gone."""
    now = store.now()
    await store.commit([(CreateRun(run_row(1, started_at=now), (message(),)),)])
    await store.commit([(ScheduleTimer(TimerRow("run-1", 3, now + SECOND)),)])
    await store.due_timers(500)
    await store.commit([(DropTimer("run-1", 3),)])
    mark = store.seen("timers")
    answered, go_on = asyncio.Event(), asyncio.Event()
    read = store._read

    async def slow(sql: str, *parameters: object) -> Any:
        found = await read(sql, *parameters)
        answered.set()
        await go_on.wait()
        return found

    store._read = slow  # type: ignore[method-assign]
    look = asyncio.create_task(store.due_timers(500))
    await answered.wait()
    await store.commit([(ScheduleTimer(TimerRow("run-1", 7, now + 2 * SECOND)),)])
    go_on.set()
    assert (await look).next_at is None
    assert store.seen("timers") != mark, "nobody would come before the next look"


async def test_a_timer_that_is_decided_before_a_look_and_written_after_it_is_told(store: PostgresStore) -> None:
    now = store.now()
    await store.commit([(CreateRun(run_row(1, started_at=now), (message(),)),)])
    await store.commit([(ScheduleTimer(TimerRow("run-1", 3, now + SECOND)),)])
    await store.due_timers(500)
    await store.commit([(DropTimer("run-1", 3),)])
    settle = store._writing.settle

    async def looked_at_meanwhile(*args: Any) -> Any:
        settled = await settle(*args)
        store._hints.horizon["timers"] = FOREVER  # what a look finds that saw neither of the two
        return settled

    store._writing.settle = looked_at_meanwhile  # type: ignore[method-assign,assignment]
    mark = store.seen("timers")
    await store.commit([(ScheduleTimer(TimerRow("run-1", 7, now + 2 * SECOND)),)])
    assert store.seen("timers") != mark


async def test_an_engine_hears_of_a_signal_whose_answer_was_lost(
    store: PostgresStore, elsewhere: PostgresStore, empty_schema_url: str
) -> None:
    async with engine_that_looks_every(HOURS, store), Proxy(socket_of(empty_schema_url)) as proxy:
        started_one = await Client(elsewhere).start(waits.bind(), id="w")
        await eventually(lambda: store._notices.listening)
        async with Client(through(proxy, empty_schema_url)) as client:
            await client.get(waits, "w").describe()
            proxy.strike = once("after", writes)
            await client.get(waits, "w").signal(go, 5)
        assert await started_one.result(timeout=20) == 5
        assert proxy.struck["after"] == 1
