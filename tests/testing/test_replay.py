"""Replay as a daily tool: saved histories against today's code, here and in a process with another hash seed."""

from pathlib import Path

import pytest

from derecho import Context, DefinitionError, History, NondeterminismError, PayloadError, replay, workflow
from derecho.testing import Environment
from tests.testing import shop_v1, shop_v2


async def histories() -> tuple[History, History]:
    """A run that still waits, and one that is over."""
    async with Environment() as env:
        env.use_real(shop_v1.reserve, shop_v1.ship)
        waiting, over = (env.start(shop_v1.sale.bind(item), id=f"sale-of-{item}") for item in ("tea", "salt"))
        await env.advance(60)
        await over.signal(shop_v1.paid, "in cash")
        await over.result()
        return await waiting.history(), await over.history()


async def test_open_and_complete_histories_replay_here_and_elsewhere(tmp_path: Path) -> None:
    for number, history in enumerate(await histories()):
        (tmp_path / f"sale-{number}.jsonl").write_text(history.dumps())
        replay(shop_v1.sale, history)
    replay(shop_v1.sale, str(tmp_path / "sale-*.jsonl"), isolated=True)


async def test_a_divergence_says_what_where_and_which_edit(tmp_path: Path) -> None:
    waiting, over = await histories()
    for name, history in (("a", waiting), ("b", over)):
        (tmp_path / f"{name}.jsonl").write_text(history.dumps())
    with pytest.raises(NondeterminismError) as error:
        replay(shop_v2.sale, str(tmp_path / "*.jsonl"))
    told = str(error.value) + "\n".join(error.value.__notes__)
    assert "at event 3" in told
    assert "recorded   activity_scheduled 'reserve' at testing/shop_v1.py:21" in told
    assert "requested  activity_scheduled 'wrap' at testing/shop_v2.py:15" in told
    assert "ctx.patched('…')" in told
    assert "3 activity_scheduled 'reserve' at testing/shop_v1.py:21" in told
    assert f"of workflow 'sale-of-tea' ({tmp_path}/a.jsonl)" in told
    assert "also: workflow 'sale-of-salt': the code no longer does what history records at event 3" in told


async def test_a_missing_call_says_where_the_code_waits_instead() -> None:
    waiting, _ = await histories()

    @workflow("sale")
    async def hasty(ctx: Context, item: str) -> list[str]:
        return [await ctx.signals(shop_v1.paid).receive()]

    with pytest.raises(NondeterminismError) as error:
        replay(hasty, waiting)
    assert "requested  nothing" in str(error.value)
    assert "in hasty: return [await ctx.signals(shop_v1.paid).receive()]" in "\n".join(error.value.__notes__)


async def test_a_guarded_change_replays() -> None:
    for history in await histories():
        replay(shop_v2.careful_sale, history, isolated=True)


async def test_an_order_that_hangs_on_the_hash_seed_shows_in_another_process() -> None:
    async with Environment() as env:
        for name in ("reserve", "wrap", "ship", "weigh", "label", "bill", "thank", "ask"):
            env.stub_value(name, "done")
        run = env.start(shop_v2.hashing_sale.bind("tea"))
        await run.result()
        history = await run.history()
    replay(shop_v2.hashing_sale, history)
    with pytest.raises(NondeterminismError) as error:
        replay(shop_v2.hashing_sale, history, isolated=True)
    assert "in another process with another hash seed; in this one it replays" in error.value.__notes__


async def test_a_workflow_inside_a_function_cannot_be_replayed_elsewhere() -> None:
    waiting, _ = await histories()

    @workflow("sale")
    async def local(ctx: Context, item: str) -> list[str]:
        return [await shop_v1.reserve.execute(ctx, item), await ctx.signals(shop_v1.paid).receive()]

    replay(local, waiting)
    with pytest.raises(DefinitionError, match="move it to the top of its module"):
        replay(local, waiting, isolated=True)


async def test_a_history_of_another_workflow_type_is_called_that() -> None:
    waiting, _ = await histories()
    with pytest.raises(PayloadError) as error:
        replay(shop_v1.retired, waiting)
    assert "the history is of workflow type 'sale', the code of 'retired'" in error.value.__notes__
