"""Work for which this engine has no code is left to others; when none takes it, the log says so."""

import asyncio

import pytest

import derecho
from derecho import Context, Queue, Store, unserved
from tests.support.world import engine_of, eventually

PATIENCE = 0.05


@derecho.activity
async def pack() -> str:
    return "packed"


@derecho.activity(queue=Queue("gpu"))
async def paint() -> str:
    return "painted"


@derecho.workflow
async def parcel(ctx: Context) -> str:
    return await pack.execute(ctx)


@derecho.workflow
async def picture(ctx: Context) -> str:
    return await paint.execute(ctx)


@derecho.workflow
async def approval(ctx: Context) -> str:
    return await ctx.callback(str).future


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unserved, "PATIENCE", PATIENCE)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "those like it wait" in record.getMessage()]


async def test_the_log_says_once_that_nobody_has_an_activity(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    async with engine_of(store, parcel, picture) as engine:
        for number in range(3):
            await engine.client.start(parcel.bind(), id=f"parcel-{number}")
        await eventually(lambda: warnings(caplog))
        await engine.client.start(parcel.bind(), id="late")
        await engine.client.start(picture.bind(), id="picture")
        await eventually(lambda: len(warnings(caplog)) > 1)
    first, second = warnings(caplog)
    assert first.startswith("workflow 'parcel-")
    assert first.endswith("wait: no running engine has activity 'pack': start one that registers it")
    assert second.endswith("no running engine has activity 'paint' on queue 'gpu': start one that registers it")


async def test_the_log_says_that_nobody_has_a_workflow_that_was_started(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_of(store, pack) as engine:
        await engine.client.start(parcel.bind(), id="w")
        [told] = await eventually(lambda: warnings(caplog))
    assert told == (
        "workflow 'w' and those like it wait: no running engine has workflow type 'parcel': start one that registers it"
    )


async def test_work_that_another_engine_takes_is_no_word_in_the_log(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_of(store, parcel) as engine, engine_of(store, pack):
        assert await engine.client.run(parcel.bind()) == "packed"
        await asyncio.sleep(2 * PATIENCE)
    assert warnings(caplog) == []


async def test_what_waits_for_the_outside_world_waits_for_no_engine(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine_of(store, approval) as engine:
        await engine.client.start(approval.bind())
        await asyncio.sleep(2 * PATIENCE)
    assert warnings(caplog) == []
