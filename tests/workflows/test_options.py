"""An option of a wrong kind is refused at the line that gave it; nothing unreadable gets into a history."""

from collections.abc import Callable
from typing import Any

import pytest

from derecho import Context, PayloadError, activity, workflow
from tests.support.flows import Flows


@activity
async def work() -> None: ...


@workflow
async def child(ctx: Context) -> None: ...


OPTIONS: dict[str, Callable[[Context], Any]] = {
    "a summary is text, not 7": lambda ctx: ctx.sleep(1, summary=7),  # type: ignore[arg-type]
    "a summary is text, not None": lambda ctx: ctx.execute(work.bind(), summary=None),  # type: ignore[arg-type]
    "a summary is text, not 8": lambda ctx: ctx.child(child.bind(), summary=8),  # type: ignore[arg-type]
    "on_cancel is one of 'request', 'wait', 'abandon', not 'abort'": (
        lambda ctx: ctx.execute(work.bind(), on_cancel="abort")  # type: ignore[arg-type]
    ),
    "on_cancel is one of 'request', 'wait', 'abandon', not 'stop'": (
        lambda ctx: ctx.child(child.bind(), on_cancel="stop")  # type: ignore[arg-type]
    ),
    "close_policy is one of 'terminate', 'cancel', 'abandon', not 'abandoned'": (
        lambda ctx: ctx.child(child.bind(), close_policy="abandoned")  # type: ignore[arg-type]
    ),
    "ctx.execute takes a call of an activity": lambda ctx: ctx.execute("work"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("reason", OPTIONS)
async def test_a_wrong_option_blocks_its_run_and_mended_code_goes_on(flows: Flows, reason: str) -> None:
    async def wrong(ctx: Context) -> str:
        await work.execute(ctx)
        await OPTIONS[reason](ctx)
        return "never"

    async def right(ctx: Context) -> str:
        await work.execute(ctx)
        return "mended"

    async with flows.engine(workflow("order")(wrong), work) as engine:
        await engine.client.start(workflow("order")(wrong).bind(), id="w")
        assert reason in await flows.blocked("w")
    async with flows.engine(workflow("order")(right), work) as engine:
        assert await engine.client.get(workflow("order")(right), "w").result(timeout=30) == "mended"


@pytest.mark.parametrize("ask", ["cancel", "terminate"])
async def test_a_reason_that_is_no_text_is_refused(flows: Flows, ask: str) -> None:
    @workflow
    async def waits(ctx: Context) -> None:
        await ctx.sleep(60)

    async with flows.engine(waits) as engine:
        handle = await engine.client.start(waits.bind(), id="w")
        with pytest.raises(PayloadError, match=r"the reason of a \w+ is text, not 5"):
            await getattr(handle, ask)(5)
        assert (await handle.describe()).status == "running"
