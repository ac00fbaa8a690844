"""Starting a workflow: what comes back, what an id that is taken means, what is refused before anything is written."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

import derecho
from derecho import Client, Context, DefinitionError, PayloadError, Signal, Store, WorkflowAlreadyRunning
from derecho.starts import IfClosed, IfRunning
from tests.support.world import engine_of

go = Signal("go", int)


@dataclass
class Item:
    sku: str
    count: int = 1


@dataclass
class Order:
    id: str
    items: list[Item]


@derecho.workflow
async def ship(ctx: Context, order: Order, express: bool = False, *, note: str = "") -> str:
    return f"{order.id} {len(order.items)} {express} {note}"


@derecho.workflow
async def waits(ctx: Context, number: int = 0) -> int:
    return number + await ctx.signals(go).receive()


@derecho.workflow
async def fails(ctx: Context) -> None:
    raise ValueError("no")


@derecho.activity
async def not_a_workflow() -> None: ...


async def count_of(client: Client) -> int:
    return len([run async for run in client.list()])


async def test_without_an_id_each_start_gets_its_own(store: Store) -> None:
    async with Client(store) as client:
        handles = [await client.start(waits.bind()) for _ in range(3)]
    assert len({handle.id for handle in handles}) == len({handle.run_id for handle in handles}) == 3
    assert {UUID(handle.run_id).version for handle in handles} == {7}


async def test_it_is_durable_and_waits_for_an_engine(store: Store) -> None:
    async with Client(store) as client:
        handle = await client.start(ship.bind(Order("1", [Item("a")]), note="fragile"), id="order-1")
        assert (handle.id, (await handle.describe()).status) == ("order-1", "running")
        async with engine_of(store, ship):
            assert await handle.result(timeout=20) == "1 1 False fragile"


async def test_run_starts_and_waits(store: Store) -> None:
    async with engine_of(store, ship) as engine:
        assert await engine.client.run(ship.bind(Order("1", []), True)) == "1 0 True "


async def test_signals_given_to_start_come_before_all_others(store: Store) -> None:
    @derecho.workflow
    async def collects(ctx: Context) -> list[int]:
        return [await ctx.signals(go).receive() for _ in range(3)]

    async with Client(store) as client, engine_of(store, collects):
        handle = await client.start(collects.bind(), id="w", signals=[(go, 1), (go, 2)])
        await handle.signal(go, 3)
        assert await handle.result(timeout=20) == [1, 2, 3]


OPEN: list[tuple[IfRunning, str]] = [("fail", "error"), ("use_existing", "old"), ("terminate", "new")]


@pytest.mark.parametrize("if_closed", ["allow", "allow_if_failed", "reject", "return_existing"])
@pytest.mark.parametrize(("if_running", "outcome"), OPEN)
async def test_an_id_of_an_open_run(store: Store, if_running: IfRunning, if_closed: IfClosed, outcome: str) -> None:
    async with Client(store) as client:
        old = await client.start(waits.bind(1), id="w")
        call = client.start(waits.bind(2), id="w", if_running=if_running, if_closed=if_closed)
        if outcome == "error":
            with pytest.raises(WorkflowAlreadyRunning, match="'w' is running already") as caught:
                await call
            assert (caught.value.workflow_id, caught.value.run_id) == ("w", old.run_id)
        else:
            assert ((await call).run_id == old.run_id) is (outcome == "old")
        status = (await client.get_by_id("w", old.run_id).describe()).status
        assert status == ("terminated" if outcome == "new" else "running")
        assert (await client.get_by_id("w").describe()).status == "running"


CLOSED: list[tuple[IfClosed, str, str]] = [
    ("allow", "completed", "new"),
    ("allow", "failed", "new"),
    ("allow_if_failed", "completed", "error"),
    ("allow_if_failed", "failed", "new"),
    ("allow_if_failed", "terminated", "new"),
    ("reject", "completed", "error"),
    ("reject", "failed", "error"),
    ("reject", "terminated", "error"),
    ("return_existing", "completed", "old"),
    ("return_existing", "failed", "old"),
]


@pytest.mark.parametrize("if_running", ["fail", "use_existing", "terminate"])
@pytest.mark.parametrize(("if_closed", "status", "outcome"), CLOSED)
async def test_an_id_of_a_closed_run(
    store: Store, if_running: IfRunning, if_closed: IfClosed, status: str, outcome: str
) -> None:
    async with Client(store) as client:
        old = await close_a_run(store, client, status)
        call = client.start(waits.bind(2), id="w", if_running=if_running, if_closed=if_closed)
        if outcome == "error":
            with pytest.raises(WorkflowAlreadyRunning, match=f"has run already and closed as {status}"):
                await call
        else:
            assert ((await call).run_id == old) is (outcome == "old")
        assert await count_of(client) == 1 + (outcome == "new")


async def close_a_run(store: Store, client: Client, status: str) -> str:
    if status == "terminated":
        handle: derecho.Handle[Any] = await client.start(waits.bind(), id="w")
        await handle.terminate()
        return handle.run_id
    async with engine_of(store, waits, fails):
        if status == "completed":
            handle = await client.start(waits.bind(), id="w", signals=[(go, 1)])
        else:
            handle = await client.start(fails.bind(), id="w")
        await asyncio.wait([asyncio.ensure_future(handle.result())])
    assert (await handle.describe()).status == status
    return handle.run_id


async def test_of_many_starters_of_one_id_one_starts(store: Store) -> None:
    clients = [Client(store) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(clients[n % 4].start(waits.bind(n), id="w") for n in range(32)), return_exceptions=True
    )
    started = [outcome for outcome in outcomes if isinstance(outcome, derecho.Handle)]
    assert len(started) == 1
    assert all(isinstance(outcome, derecho.Handle | WorkflowAlreadyRunning) for outcome in outcomes)
    assert await count_of(clients[0]) == 1


@pytest.mark.parametrize(("if_running", "runs"), [("use_existing", 1), ("terminate", 16)])
async def test_racing_starters_that_agree_leave_one_open_run(store: Store, if_running: IfRunning, runs: int) -> None:
    clients = [Client(store) for _ in range(4)]
    handles = await asyncio.gather(
        *(clients[n % 4].start(waits.bind(n), id="w", if_running=if_running) for n in range(16))
    )
    assert len({handle.run_id for handle in handles}) == runs
    statuses = Counter([run.status async for run in clients[0].list()])
    assert statuses == Counter(running=1, **({"terminated": runs - 1} if runs > 1 else {}))


async def test_start_many_is_idempotent_and_keeps_the_order(store: Store) -> None:
    async with Client(store) as client:
        calls = [(f"w{n}", waits.bind(n)) for n in range(100)]
        first = await client.start_many(calls)
        again = await client.start_many(calls[50:] + calls[:50])
        assert [handle.id for handle in first] == [id for id, _ in calls]
        assert {handle.run_id for handle in first} == {handle.run_id for handle in again}
        assert await count_of(client) == 100


async def test_start_many_checks_all_before_it_starts_any(store: Store) -> None:
    wrong: Any = "one"
    async with Client(store) as client:
        with pytest.raises(PayloadError, match="argument `number` of workflow 'waits'"):
            await client.start_many([("a", waits.bind(1)), ("b", waits.bind(wrong))])
        assert await count_of(client) == 0


async def test_start_by_name_needs_only_the_name(store: Store) -> None:
    async with Client(store) as client:
        handle = await client.start_by_name("ship", {"id": "7", "items": [{"sku": "a"}]}, True, id="w")
        async with engine_of(store, ship):
            assert await handle.result(timeout=20) == "7 1 True "


@pytest.mark.parametrize(
    ("order", "express", "message"),
    [
        ("7", False, r"argument `order` of workflow 'ship' .* Expected `object`, got `str`"),
        ({"id": 7, "items": []}, False, r"argument `order` .* at `\$\.id`"),
        ({"id": "7", "items": [{"sku": "a"}, {"sku": None}]}, False, r"argument `order` .* at `\$\.items\[1\]\.sku`"),
        (Order("7", [Item("a", float("nan"))]), False, r"argument `order` .* nan at `\$\.items\[0\]\.count`"),  # type: ignore[arg-type]  # on purpose
        (Order("7", []), "yes", r"argument `express` .* Expected `bool`, got `str`"),
    ],
)
async def test_a_wrong_argument_is_refused_by_parameter_and_path(
    store: Store, order: Any, express: Any, message: str
) -> None:
    async with Client(store) as client:
        with pytest.raises(PayloadError, match=f"(?s){message}"):
            await client.start(ship.bind(order, express))
        assert await count_of(client) == 0


def test_a_call_with_the_wrong_parameters_is_a_type_error_at_its_line() -> None:
    with pytest.raises(TypeError, match="workflow 'ship': missing a required argument: 'order'"):
        ship.bind()  # type: ignore[call-arg]  # on purpose


@pytest.mark.parametrize("id", ["", "a\nb", "a\0b", "x" * 256, "\ud800"], ids=ascii)
async def test_an_id_that_some_store_would_not_keep_is_refused(store: Store, id: str) -> None:
    async with Client(store) as client:
        with pytest.raises(PayloadError, match="workflow id"):
            await client.start(waits.bind(), id=id)


NASTY = [" ", "a|b/c?d=1", "'; DROP TABLE runs; --", "日本語 \U0001f600", "%", "é" * 127]


@pytest.mark.parametrize("id", NASTY, ids=ascii)
async def test_any_other_id_works_to_the_letter(store: Store, id: str) -> None:
    async with Client(store) as client, engine_of(store, waits):
        handle = await client.start(waits.bind(1), id=id)
        await client.get(waits, id).signal(go, 1)
        assert await handle.result(timeout=20) == 2
        assert [run.workflow_id async for run in client.list()] == [id]


async def test_a_text_with_a_nul_character_comes_through(store: Store) -> None:
    async with Client(store) as client, engine_of(store, ship):
        handle = await client.start(ship.bind(Order("a\0b", [])))
        assert await handle.result(timeout=20) == "a\0b 0 False "


async def test_only_calls_of_workflows_are_started(store: Store) -> None:
    async with Client(store) as client:
        for wrong in (not_a_workflow.bind(), waits, None):
            with pytest.raises(DefinitionError, match=r"is not a call of a workflow: pass some_workflow\.bind"):
                await client.start(wrong)  # type: ignore[arg-type]  # on purpose
