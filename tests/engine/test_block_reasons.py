"""A blocked run says which line of its author's code stands in the way, never one of Derecho's own."""

import inspect
from typing import Any

import pytest

import derecho
from derecho import Context, Engine, Handle, MemoryStore
from derecho.workflow import Workflow
from tests.support.world import eventually


@derecho.activity
async def double(number: int) -> int:
    return 2 * number


@derecho.workflow
async def passes_a_text(ctx: Context) -> int:
    text: Any = "seven"
    return await double.execute(ctx, text)  # here


@derecho.workflow
async def misspells(ctx: Context) -> int:
    return int(nubmer)  # type: ignore[name-defined]  # noqa: F821  # here: the slip that this is about


@derecho.workflow
async def returns_a_text(ctx: Context) -> int:
    text: Any = "seven"
    return text  # type: ignore[no-any-return]  # the slip that this is about


async def reason_of(handle: Handle[Any]) -> str:
    return (await handle.describe()).blocked_reason or ""


@pytest.mark.parametrize("workflow", [passes_a_text, misspells], ids=lambda workflow: workflow.name)
async def test_the_authors_line_is_named(workflow: Workflow[[], int]) -> None:
    lines, first = inspect.getsourcelines(workflow.fn)
    line = first + next(number for number, text in enumerate(lines) if "# here" in text)
    async with Engine(MemoryStore(), workflows=[workflow], activities=[double]) as engine:
        handle = await engine.client.start(workflow.bind())
        reason: str = await eventually(lambda: reason_of(handle))
    assert reason.endswith(f"(at engine/test_block_reasons.py:{line})")


async def test_where_no_line_of_the_author_had_a_part_none_is_named() -> None:
    async with Engine(MemoryStore(), workflows=[returns_a_text]) as engine:
        handle = await engine.client.start(returns_a_text.bind())
        reason: str = await eventually(lambda: reason_of(handle))
    assert reason.endswith("cannot be decoded as int: Expected `int`, got `str`")
