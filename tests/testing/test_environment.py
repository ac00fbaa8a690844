"""The environment: the real engine, on a clock that jumps when everything waits."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from derecho import PayloadError, PostgresStore, StoreError, WorkflowBlocked, WorkflowCancelled, WorkflowFailed
from derecho.stores.sqlite import SQLiteStore
from derecho.testing import Environment
from tests.testing.programs import (
    CardDeclined,
    Order,
    Receipt,
    approved,
    ask,
    asks,
    charge,
    elsewhere,
    flaky_step,
    in_a_process,
    lottery,
    order_workflow,
    pack,
    pay,
    refund,
    slip,
    waiter,
    weigh,
    yearly,
)

DAY = timedelta(days=1)
ORDER = order_workflow.bind(Order("1", 999))


@pytest.fixture
async def env() -> AsyncIterator[Environment]:
    async with Environment() as env:
        yield env


async def test_a_workflow_of_ten_years_runs_through_and_sees_its_own_time(env: Environment) -> None:
    began = time.monotonic()
    assert await env.run(yearly.bind(10)) == [f"{year}-01-01" for year in (2027, 2028)] + [
        f"{year}-12-31" for year in (2028, 2029, 2030, 2031)
    ] + [f"{year}-12-30" for year in (2032, 2033, 2034, 2035)]
    assert env.now == datetime(2026, 1, 1, tzinfo=UTC) + 3650 * DAY
    assert time.monotonic() - began < 60  # real seconds; ten years of them would be more


async def test_time_stands_still_until_it_is_advanced(env: Environment) -> None:
    env.stub_value(charge, "ch_1")
    env.stub(weigh, lambda parcel: 7)
    run = env.start(ORDER)
    await env.advance(2 * DAY)
    assert env.now == datetime(2026, 1, 3, tzinfo=UTC)
    env.assert_not_called(charge)
    await run.signal(approved, "ann")
    await env.advance(0)
    env.assert_called_with(charge, "1", 999)
    env.assert_not_called(weigh)
    await env.advance(3600)
    env.assert_called(weigh, times=2)
    assert await run.result() == Receipt("ch_1", ["ann-0:7", "ann-1:7"])
    assert env.now == datetime(2026, 1, 3, 1, tzinfo=UTC)


async def test_an_awaited_result_lets_time_jump_to_the_deadline(env: Environment) -> None:
    run = env.start(ORDER)
    with pytest.raises(WorkflowFailed) as failed:
        await run.result()
    assert isinstance(failed.value.__cause__, TimeoutError)
    assert env.now == datetime(2026, 1, 4, tzinfo=UTC)


async def test_the_same_on_sqlite(tmp_path: Path) -> None:
    async with Environment(store=lambda clock: SQLiteStore(tmp_path / "test.db", clock=clock)) as env:
        env.stub_value(charge, "ch_1")
        env.stub_child(pack, "packed")
        run = env.start(ORDER)
        await env.advance(DAY)
        await run.signal(approved, "ann")
        assert await run.result() == Receipt("ch_1", ["packed", "packed"])
        assert [event["type"] for event in await run.history()][-1] == "workflow_completed"


async def test_errors_are_retried_by_the_policy_on_the_virtual_clock(env: Environment) -> None:
    env.stub_value(charge, "paid")
    env.stub_error(charge, OSError("down"), times=3)
    assert await env.run(pay.bind("1")) == "paid"
    assert env.now == datetime(2026, 1, 1, 0, 1, 10, tzinfo=UTC)  # 10 + 20 + 40 s
    assert [type(call.error) for call in env.calls(charge)] == [OSError, OSError, OSError, type(None)]
    assert [call.attempt for call in env.calls(charge)] == [1, 2, 3, 4]
    assert env.calls(charge)[-1].result == "paid"


async def test_an_error_that_is_given_up_on_fails_the_workflow(env: Environment) -> None:
    env.stub_error("charge", CardDeclined("no money"))
    with pytest.raises(WorkflowFailed) as failed:
        await env.run(pay.bind("1"))
    assert isinstance(failed.value.__cause__, CardDeclined)
    env.assert_called("charge", times=1)


async def test_stubs_are_values_functions_and_coroutines_by_definition_and_by_name(env: Environment) -> None:
    async def slow(order: str, cents: int = 1) -> str:
        await asyncio.sleep(0)
        return f"async {order} {cents}"

    env.stub(charge, slow)
    assert await env.run(pay.bind("1")) == "async 1 1"
    env.stub(charge, lambda order, cents=2: f"sync {order} {cents}")
    assert await env.run(pay.bind("2")) == "sync 2 2"
    env.stub_value("charge", "by name")
    assert await env.run(pay.bind("3")) == "by name"
    assert [call.args for call in env.calls("charge")] == [("1", 100), ("2", 100), ("3", 100)]


async def test_real_activities_run_on_the_loop_and_in_threads(env: Environment) -> None:
    env.use_real(charge, weigh)
    run = env.start(ORDER, signals=[(approved, "ann")])
    assert await run.result() == Receipt("really 1 999", ["ann-0:5", "ann-1:5"])
    assert [call.result for call in env.calls(weigh)] == [5, 5]


async def test_a_real_activity_runs_in_its_process(env: Environment) -> None:
    env.use_real(in_a_process)
    length, pid = await env.run(elsewhere.bind("tea"))
    assert (length, pid != os.getpid()) == (3, True)
    [call] = env.calls(in_a_process)
    assert (call.args, call.result) == (("tea",), [length, pid])
    run = env.start(elsewhere.bind("bad"))
    await env.advance(0)
    assert isinstance(env.calls(in_a_process)[-1].error, Exception)
    await run.cancel()


async def test_callbacks_are_completed_by_the_client_across_continue_as_new(env: Environment) -> None:
    tokens: list[str] = []
    env.stub(ask, lambda token: tokens.append(token))
    run = env.start(asks.bind(3))
    for n in range(3):
        await env.advance(60)
        await env.client.complete(tokens[n], f"answer {n}")
    assert await run.result() == "answer 2"


async def test_the_same_on_postgresql(schema_url: str) -> None:
    async with Environment(store=lambda clock: PostgresStore(schema_url, clock=clock)) as env:
        env.stub_value(charge, "ch_1")
        env.stub(weigh, lambda parcel: 7)
        run = env.start(ORDER)
        await env.advance(DAY)
        await run.signal(approved, "ann")
        assert await run.result() == Receipt("ch_1", ["ann-0:7", "ann-1:7"])
        assert env.now == datetime(2026, 1, 2, 1, tzinfo=UTC)


async def test_an_activity_without_a_stub_fails_the_test_at_once_and_names_what_is_near(env: Environment) -> None:
    env.stub_value("chrage", "a slip of the test")
    with pytest.raises(
        AssertionError, match=r"'pay' called activity 'charge', which has no stub.*Did you mean 'chrage'"
    ):
        await env.run(pay.bind("1"))


async def test_a_stub_that_cannot_take_the_arguments_fails_the_test_at_once(env: Environment) -> None:
    env.stub(charge, lambda: "ch_1")  # type: ignore[misc, arg-type]  # the slip
    with pytest.raises(AssertionError, match=r"stub of activity 'charge' cannot be called with \('1'\): too many"):
        await env.run(pay.bind("1"))


async def test_a_stub_that_is_used_up_is_no_stub(env: Environment) -> None:
    env.stub_error(charge, OSError("down"), times=1)
    with pytest.raises(AssertionError, match="its stubs are used up"):
        await env.run(pay.bind("1"))


async def test_what_nobody_awaited_is_told_when_the_environment_is_closed() -> None:
    env = Environment()
    run = env.start(pay.bind("1"))
    await run.handle()
    await asyncio.wait_for(env._world.settle(), 30)
    with pytest.raises(AssertionError, match="activity 'charge', which has no stub"):
        await env.close()


async def test_a_run_that_nobody_awaits_does_no_harm_and_a_start_that_fails_is_told() -> None:
    env = Environment()
    await env.advance(0)
    env.start(yearly.bind(1))
    await env.close()
    env = Environment()
    await env.advance(0)
    env.start(pay.bind(5))  # type: ignore[arg-type]  # the slip
    with pytest.raises(PayloadError, match="argument `order` of workflow 'pay'"):
        await env.close()


async def test_a_store_in_trouble_is_told(monkeypatch: pytest.MonkeyPatch, env: Environment) -> None:
    async def broken(limit: int) -> None:
        raise StoreError("the disk is gone")

    run = env.start(yearly.bind(1))
    await env.advance(0)
    monkeypatch.setattr(env._world.store, "due_timers", broken)
    with pytest.raises(StoreError, match="the disk is gone"):
        await run.result()


async def test_a_value_that_does_not_fit_is_refused_where_it_is_given(env: Environment) -> None:
    with pytest.raises(PayloadError, match="the result of activity 'charge'"):
        env.stub_value(charge, 5)
    with pytest.raises(PayloadError, match="the result of workflow 'pack'"):
        env.stub_child(pack, 5)


async def test_a_blocked_run_raises_at_once_with_its_cause(env: Environment) -> None:
    run = env.start(slip.bind())
    with pytest.raises(WorkflowBlocked, match="a slip of the code") as blocked:
        await run.result()
    assert isinstance(blocked.value.__cause__, NameError)
    env.start(slip.bind(), id="other")
    with pytest.raises(WorkflowBlocked, match="other"):
        await env.advance(0)


async def test_a_result_that_can_never_come_says_what_is_waited_for(env: Environment) -> None:
    with pytest.raises(AssertionError, match="nothing will ever happen:\n  waiter 'waiter-1': signal 'approved'"):
        await env.run(waiter.bind())


async def test_a_test_may_await_and_act_at_the_same_time(env: Environment) -> None:
    run = env.start(waiter.bind())
    result = asyncio.create_task(run.result())
    await env.advance(DAY)
    await run.signal(approved, "ann")
    assert await result == "ann"


async def test_a_stub_that_hangs_runs_into_its_timeout(env: Environment) -> None:
    async def hang(order: str, cents: int = 0) -> str:
        return str(await asyncio.Event().wait())

    env.stub(charge, hang)
    env.start(pay.bind("1"))
    await env.advance(61)
    assert len(env.calls(charge)) == 1
    env.stub_value(charge, "in the second attempt")
    await env.advance(10)
    assert [call.attempt for call in env.calls(charge)] == [1, 2]


async def test_cancel_reaches_the_run(env: Environment) -> None:
    run = env.start(ORDER)
    await env.advance(DAY)
    await run.cancel("changed my mind")
    with pytest.raises(WorkflowCancelled, match="changed my mind"):
        await run.result()


async def test_a_saga_compensates_with_stubs(env: Environment) -> None:
    env.stub_value(charge, "ch_1")
    env.stub_value(refund, None)
    env.stub_error(weigh, OSError("broken scales"))
    run = env.start(ORDER, signals=[(approved, "ann")])
    await env.advance(3700)
    await run.cancel()
    with pytest.raises(WorkflowCancelled):
        await run.result()
    env.assert_called_with(refund, "ch_1")


async def test_a_step_is_retried_on_the_virtual_clock(env: Environment) -> None:
    assert await env.run(flaky_step.bind()) == 4
    assert env.now == datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)  # 1 + 2 + 4 s


async def test_the_client_works_on_the_virtual_clock(env: Environment) -> None:
    env.use_real(yearly)
    await env.advance(0)
    handle = await env.client.start(yearly.bind(1), id="by-client")
    assert await handle.result() == ["2027-01-01"]


async def test_chance_is_the_same_in_every_run_of_a_test_and_follows_the_seed() -> None:
    seen = []
    for seed in (0, 0, 1):
        async with Environment(seed=seed) as env:
            seen.append(await env.run(lottery.bind()))
    assert seen[0] == seen[1] != seen[2]


async def test_assertions_say_what_was_called(env: Environment) -> None:
    env.stub_value(charge, "ch_1")
    await env.run(pay.bind("1"))
    with pytest.raises(AssertionError, match=r"'refund' should have been called at all.*Called: 'charge' 1 times"):
        env.assert_called(refund)
    with pytest.raises(AssertionError, match="'charge' should have been called 2 times, and was 1 times"):
        env.assert_called(charge, times=2)
    with pytest.raises(AssertionError, match=r"never called with \('2', 100\). Its calls: \[\('1', 100\)\]"):
        env.assert_called_with(charge, "2")
    with pytest.raises(AssertionError, match="'charge' should not have been called"):
        env.assert_not_called(charge)
    env.assert_called_with(charge, "1", cents=100)


async def test_closing_leaves_no_task_and_no_thread() -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with Environment() as env:
        env.use_real(charge, weigh)
        env.start(ORDER, signals=[(approved, "ann")])
        env.start(yearly.bind(3))
        await env.advance(DAY)
        assert set(threading.enumerate()) - threads
    assert asyncio.all_tasks() == tasks
    for thread in set(threading.enumerate()) - threads:
        thread.join(30)
    assert set(threading.enumerate()) <= threads
