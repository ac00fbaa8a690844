"""A batch about rows that are remembered is one statement; what somebody else did meanwhile is never overlooked."""

import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from msgspec.structs import astuple, replace

from derecho import PostgresStore
from derecho.errors import StoreUnavailable
from derecho.journal import changes as ch
from derecho.journal.changes import Conflict, Receipt
from derecho.journal.model import Head, WorkerRow
from derecho.stores.postgres import remembered
from derecho.stores.postgres.batch import Wanted
from derecho.stores.postgres.connections import Link
from derecho.stores.postgres.remembered import Remembered
from derecho.testing.clock import VirtualClock
from derecho.testing.conformance.kit import (
    MINUTE,
    OTHER_WORKER,
    WORKER,
    World,
    activity_row,
    advance,
    head_after,
    history_row,
    message,
    run_row,
)
from tests.postgres.proxy import Proxy
from tests.postgres.test_lost_connections import once, socket_of, through
from tests.support.schemas import Janitor


class Watched(World):
    """A world that tells which of its statements were of a batch: "load" or "write"."""

    def __init__(self, proxy: Proxy, url: str, clock: VirtualClock) -> None:
        super().__init__(PostgresStore(through(proxy, url), pool_size=1, clock=clock), clock)
        self.proxy = proxy
        self.told: list[str] = []
        self.listen()

    def listen(self) -> None:
        self.proxy.strike = lambda sql: self.told.append(kind(sql))

    def statements(self) -> list[str]:
        told, self.told[:] = [statement for statement in self.told if statement], []
        return told


def kind(sql: str) -> str:
    return "write" if "WITH workers_locked" in sql else "load" if sql.endswith("AS timers;") else ""


@pytest.fixture
async def here(empty_schema_url: str) -> AsyncIterator[Watched]:
    async with Proxy(socket_of(empty_schema_url)) as proxy:
        world = Watched(proxy, empty_schema_url, VirtualClock())
        yield world
        await world.store.close()


@pytest.fixture
async def there(empty_schema_url: str, here: Watched) -> AsyncIterator[World]:
    """The same database, for another engine."""
    world = World(PostgresStore(empty_schema_url, clock=here.clock, worker_affinity=False), here.clock)
    yield world
    await world.store.close()


async def warm(world: Watched, number: int = 1) -> ch.Advance:
    """A run that the worker holds, and its last turn, by which it is remembered."""
    run = await world.claimed(number)
    turn = advance(run.run_id, run.head, claim=run.claim, keep_claim=True, consume_to=run.inbox_last)
    await world.do(turn)
    world.statements()
    return turn


def after(turn: ch.Advance, **fields: Any) -> ch.Advance:
    return advance(turn.run_id, head_after(turn), **{"claim": turn.claim, "keep_claim": True, **fields})


# --- one statement ----------------------------------------------------------------------------------------------------


async def test_the_next_commit_of_a_warm_run_is_one_statement(here: Watched) -> None:
    turn = await warm(here)
    for _ in range(3):
        turn = after(turn)
        await here.do(turn)
        assert here.statements() == ["write"]
    await here.do(after(turn, status="completed", inbox_seen=2))
    assert here.statements() == ["write"]
    assert (await here.run()).status == "completed"


async def test_the_first_turn_of_a_run_that_was_claimed_is_one_statement(here: Watched) -> None:
    run = await here.claimed()
    here.statements()
    await here.do(advance(run.run_id, run.head, claim=run.claim))
    assert here.statements() == ["write"]


async def test_a_start_with_a_new_id_is_one_statement(here: Watched) -> None:
    await here.register()
    here.statements()
    row = run_row(1, tasks=1, claim="mine", worker=WORKER)
    await here.do(ch.CreateRun(row, (), None, first=history_row(Head())))
    assert here.statements() == ["write"]
    assert (await here.run()).claim == "mine"


async def test_an_activity_of_a_warm_run_is_one_statement_each_time(here: Watched) -> None:
    turn = after(await warm(here))
    held = activity_row(claim="attempt", worker=WORKER, started_at=here.now)
    await here.do(turn, ch.ScheduleActivity(held))
    await here.do(ch.Heartbeat("run-1", 5, "attempt", "half", None))
    assert (await here.activities())[0].heartbeat == "half"
    here.statements()
    await here.do(ch.FinishActivity("run-1", 5, "attempt"), after(turn))
    assert here.statements() == ["write"]
    assert await here.activities() == []


async def test_a_run_that_continues_as_new_is_one_statement(here: Watched) -> None:
    await here.closed(3, workflow_id="order-1")
    turn = await warm(here)
    close = after(turn, status="continued_as_new", continues=True, inbox_seen=2)
    following = run_row(2, workflow_id="order-1", chain_id="chain-1")
    await here.do(close, ch.CreateRun(following, (message("start"),), "run-1"))
    assert here.statements() == ["write"]
    found = await here.store.find_run("order-1")
    assert found is not None
    assert found.run_id == "run-2"


async def test_what_another_engine_holds_is_not_guessed_at(here: Watched, there: World) -> None:
    await there.claimed()
    for text in ("one", "two"):
        await here.do(ch.Deliver(message(text), run_id="run-1"))
        here.statements()
    await here.do(ch.Deliver(message("three"), run_id="run-1"))
    assert here.statements() == ["load", "write"]


# --- others -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["delivers", "closes", "terminates", "releases", "advances", "blocks"])
async def test_what_another_engine_did_meanwhile_is_seen(here: Watched, there: World, what: str) -> None:
    turn = await warm(here)
    head, claim = head_after(turn), turn.claim or ""
    done: dict[str, tuple[ch.Change, str]] = {
        "delivers": (ch.Deliver(message("late"), run_id="run-1"), "unread"),
        "closes": (advance("run-1", head, claim=ch.ANY_CLAIM, status="failed", data="[2]"), "closed"),
        "terminates": (ch.RequestTerminate("run-1", "enough"), "claimed"),
        "releases": (ch.ReleaseRun("run-1", claim), "claimed"),
        "advances": (advance("run-1", head, claim=claim, data="[1]"), "moved"),
        "blocks": (ch.BlockRun("run-1", head, claim, "why", here.now), "claimed"),
    }
    change, reason = done[what]
    await there.do(change)
    before = await there.run()
    conflict = await here.refused(after(turn, status="completed", inbox_seen=2))
    assert conflict.reason == reason
    assert await there.run() == before
    assert here.statements() == ["write", "load"], "a guess is tried once, and what was refused is looked at"


async def test_a_run_that_another_engine_has_claimed_is_its_own(here: Watched, there: World) -> None:
    turn = await warm(here)
    await here.do(after(turn, keep_claim=False))
    await there.register(OTHER_WORKER)
    await there.do(ch.Deliver(message(), run_id="run-1"))
    (taken,) = await there.claim(worker=OTHER_WORKER)
    (receipt,) = await here.store.commit([(ch.Deliver(message(), run_id="run-1", claim="mine", worker=WORKER),)])
    assert receipt == Receipt((("run-1", 4, False),))
    assert (await there.run()).claim == taken.run.claim


async def test_nothing_is_refused_by_a_guess(here: Watched, there: World) -> None:
    """The inbox was full when it was seen last; since then, somebody has read it."""
    turn = await warm(here)
    await here.do(ch.Deliver(message(), run_id="run-1"))
    await there.do(after(turn, consume_to=3))
    await here.do(ch.Deliver(message(), run_id="run-1", limit=1))
    assert (await here.run()).inbox_last == 4


async def test_nobody_is_told_of_a_refusal_by_a_guess(here: Watched, there: World) -> None:
    await warm(here, 2)
    turn = await warm(here, 1)
    await here.do(ch.Deliver(message(), run_id="run-1"))
    await there.do(after(turn, consume_to=3))
    deliver = ch.Deliver(message(), run_id="run-1", limit=1, reply_to="run-2", undelivered=message("undelivered"))
    await here.do(replace(deliver, delivered=message("delivered")))
    assert "undelivered" not in str(await here.inbox("run-2"))
    assert (await here.run()).inbox_last == 4


async def test_no_parent_is_told_that_its_child_was_refused_when_it_had_been_created(
    here: Watched, there: World
) -> None:
    create = ch.CreateRun(
        run_row(3, workflow_id="order-1"), (message("start"),), refusal=ch.Deliver(message("refused"), run_id="run-2")
    )
    await there.do(create)
    await there.do(advance("run-3", status="completed"))
    await warm(here, 2)
    await warm(here, 1)  # takes the same workflow id
    before = await here.inbox("run-2")
    _, result = await here.store.commit([(ch.Deliver(message(), run_id="run-1"),), (create,)])
    assert result == Receipt(repeated=True)
    assert await here.inbox("run-2") == before


async def test_a_dead_worker_gets_no_run_that_it_had_slept_beside(here: Watched, there: World) -> None:
    """The row of the run is as it was; the one that says who lives is gone."""
    await here.do(after(await warm(here), keep_claim=False))
    here.clock.advance(2 * MINUTE)
    await there.do(ch.BuryWorker(WORKER))
    receipt = await here.do(ch.Deliver(message(), run_id="run-1", claim="mine", worker=WORKER))
    assert receipt == Receipt((("run-1", 3, False),))
    assert (await there.run()).claim is None


async def test_an_activity_that_was_taken_over_is_not_finished(here: Watched, there: World) -> None:
    await warm(here)
    await here.do(ch.ScheduleActivity(activity_row(claim="attempt", worker=WORKER, started_at=here.now)))
    await there.do(ch.RetryActivity("run-1", 5, "attempt", 2, here.now, None, None))
    assert (await here.refused(ch.FinishActivity("run-1", 5, "attempt"))).reason == "not_found"


async def test_a_key_enters_a_warm_run_once(here: Watched) -> None:
    await warm(here)
    for number in (3, 0):
        receipt = await here.do(ch.Deliver(message("text", "key"), run_id="run-1"))
        assert receipt == Receipt((("run-1", number, False),))


async def test_a_warm_run_drops_its_timer(here: Watched) -> None:
    turn = await warm(here)
    await here.timer(7)
    await here.do(after(turn), ch.DropTimer("run-1", 7))
    assert (await here.store.pending("run-1")).timers == []


# --- workflow ids -----------------------------------------------------------------------------------------------------


async def test_the_run_that_takes_a_workflow_id_again_is_the_newest(here: Watched) -> None:
    for number in (1, 2):
        await here.closed(number, workflow_id="order-1")
    await here.do(ch.ForgetRun("run-1"))  # the number 1 is free
    await here.start(3, workflow_id="order-1")
    found = await here.store.find_run("order-1")
    assert found is not None
    assert found.run_id == "run-3"


async def test_a_start_that_must_be_the_first_is_not_when_another_one_was(here: Watched, there: World) -> None:
    await there.closed(1)
    create = ch.CreateRun(run_row(2, workflow_id="order-1"), (message("start"),), None)
    assert (await here.refused(create)).reason == "superseded"
    await there.start(3)
    create = ch.CreateRun(run_row(4, workflow_id="order-3"), (message("start"),))
    assert await here.refused(create) == Conflict("already_running", "run-3")


async def test_a_start_and_a_turn_that_are_sent_again_are_recognised(here: Watched) -> None:
    await here.register()
    start = ch.CreateRun(run_row(1, claim="mine", worker=WORKER), (message("start"),))
    assert not (await here.do(start)).repeated
    assert (await here.do(start)).repeated
    turn = advance(claim="mine", keep_claim=True)
    await here.do(turn)
    await here.do(after(turn))
    assert (await here.do(turn)).repeated


# --- unknown outcomes, transactions, other histories ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["before", "after"])
async def test_after_an_unknown_outcome_nothing_is_guessed(here: Watched, where: Any) -> None:
    turn = after(await warm(here))
    here.proxy.strike = once(where, lambda sql: kind(sql) == "write")
    with pytest.raises(StoreUnavailable) as lost:
        await here.commit(turn)
    assert lost.value.outcome == "unknown"
    here.listen()
    receipt = await here.do(turn)
    assert receipt.repeated == (where == "after")
    assert here.statements()[0] == "load"
    assert (await here.run()).tasks == turn.row.task


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_what_a_users_transaction_touches_is_not_remembered(here: Watched, postgres_url: str, end: str) -> None:
    turn = await warm(here)
    mine: Any = await asyncpg.connect(postgres_url)
    transaction = mine.transaction()
    await transaction.start()
    assert isinstance(await here.store.commit_within(mine, (ch.Deliver(message(), run_id="run-1"),)), Receipt)
    await getattr(transaction, end)()
    await mine.close()
    here.statements()
    await here.do(after(turn))
    assert here.statements() == ["load", "write"]
    assert (await here.run()).inbox_last == (3 if end == "commit" else 2)


async def test_what_was_seen_in_another_history_is_forgotten(here: Watched) -> None:
    turn = await warm(here)
    store: Any = here.store
    store._connections.hosts.epoch += 1
    await here.do(after(turn))
    assert here.statements() == ["load", "write"]


async def test_a_new_connection_knows_nothing_of_what_was_seen_before_it(here: Watched) -> None:
    """Its server may have crashed, forgotten the newest rows, and given their xids to others."""
    turn = await warm(here)
    store: Any = here.store
    link = await store._connections.take()
    link.connection.terminate()
    await store._connections.give(link)
    await here.do(after(turn))
    assert here.statements() == ["load", "write"]


# --- the clock --------------------------------------------------------------------------------------------------------


async def test_no_run_is_ready_at_an_instant_that_the_database_has_not_reached(
    empty_schema_url: str, janitor: Janitor, shared_schema: str
) -> None:
    """Its clock was set back since it was seen last."""
    store: Any = PostgresStore(empty_schema_url)
    await store.open()
    await store.commit([(ch.RegisterWorker(WorkerRow(WORKER, "test", store.now() + MINUTE, [])),)])
    turn = advance(claim="mine", keep_claim=True)
    start = ch.CreateRun(run_row(1, claim="mine", worker=WORKER), (message("start"),))
    await store.commit([(start,), (turn,)])
    store._ahead += 60 * MINUTE
    assert isinstance((await store.commit([(after(turn, keep_claim=False),)]))[0], Receipt)
    (ready_at, instant) = janitor.fetch(f"SELECT ready_at, {shared_schema}.instant() FROM {shared_schema}.live")[0]
    await store.close()
    assert ready_at <= instant


# --- the memory -------------------------------------------------------------------------------------------------------


def test_another_history_is_another_memory() -> None:
    memory, wanted = Remembered(), Wanted([(ch.Deliver(message(), run_id="run-1"),)])
    before, now = (Link(None, epoch) for epoch in (0, 1))  # type: ignore[arg-type]  # it asks for no connection
    now.taken = time.monotonic_ns()
    for link in (before, now):
        memory.keep(now, {"run-1": (*astuple(run_row()), 1, WORKER, 5)})
        assert (memory.take(link, wanted, 0) is None) == (link is before)


def test_many_threads_remember_at_most_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 50)
    memory, link = Remembered(), Link(None)  # type: ignore[arg-type]  # it asks for no connection
    errors: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(3_000):
                memory.keep(link, {f"run-{thread}-{number}": ()})
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    assert len(memory._rows) == 50
