"""The workflow's logger says which run it is, and is silent while history is replayed."""

import logging

import pytest

from derecho import Context, activity, workflow
from tests.runtime.conftest import DriveOf
from tests.support.drive import RUN_ID, WORKFLOW_ID


@activity
async def work() -> None: ...


@workflow
async def chatty(ctx: Context) -> None:
    ctx.log.info("begun")
    await work.execute(ctx)
    ctx.log.warning("half way, %d", 50, extra={"order": "o-1"})
    await work.execute(ctx)
    ctx.log.error("done")


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_every_record_names_the_run(drive: DriveOf, caplog: pytest.LogCaptureFixture) -> None:
    run = drive(chatty)
    run.begin()
    run.task(run.completed("work"))
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("derecho.workflow", "begun"),
        ("derecho.workflow", "half way, 50"),
    ]
    for record in caplog.records:
        fields = vars(record)
        assert (fields["workflow_id"], fields["run_id"], fields["workflow_type"]) == (WORKFLOW_ID, RUN_ID, "chatty")
    assert vars(caplog.records[1])["order"] == "o-1"
    assert caplog.records[1].funcName == "chatty"


def test_replay_is_silent_and_what_comes_after_it_is_not(drive: DriveOf, caplog: pytest.LogCaptureFixture) -> None:
    run = drive(chatty)
    run.begin()
    run.task(run.completed("work"))
    caplog.clear()
    cold = drive(chatty)
    cold.take_over(run)
    assert caplog.records == []
    cold.task(cold.completed("work", nth=2))
    assert [record.getMessage() for record in caplog.records] == ["done"]


def test_arguments_are_not_even_formatted_on_replay(drive: DriveOf) -> None:
    formatted: list[int] = []

    class Costly:
        def __str__(self) -> str:
            formatted.append(1)
            return "costly"

    @workflow
    async def logs(ctx: Context) -> None:
        ctx.log.info("%s", Costly())
        if ctx.log.isEnabledFor(logging.INFO):
            formatted.append(2)

    run = drive(logs)
    run.begin()
    before = len(formatted)
    drive(logs).take_over(run)
    assert len(formatted) == before > 0
