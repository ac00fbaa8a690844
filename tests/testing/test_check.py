"""`check`: is the code at hand safe for the runs of a live database?"""

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import derecho
from derecho import Client, Engine, SQLiteStore, StoreError, check
from derecho.__main__ import main
from derecho.journal.model import RunFilter
from tests.house.repository import ROOT
from tests.support.world import eventually
from tests.testing import shop_v1, shop_v2

ACTIVITIES = [shop_v1.reserve, shop_v1.ship, shop_v2.wrap]


async def run_shop(store: SQLiteStore, workflow: derecho.Workflow[[str], list[str]], *items: str) -> None:
    """Sales that wait for payment; "salt" is paid at once."""
    async with Engine(store, workflows=[workflow, shop_v1.retired], activities=ACTIVITIES) as engine:
        for item in items:
            signals = [(shop_v1.paid, "cash")] if item == "salt" else []
            await engine.client.start(workflow.bind(item), id=f"sale-of-{item}", signals=signals)
        for item in items:
            handle = engine.client.get(workflow, f"sale-of-{item}")

            async def reserved(handle: derecho.Handle[list[str]] = handle) -> bool:
                done = [event.get("result") for event in await handle.history()]
                return {"json": f"reserved {handle.id[8:]}"} in done

            await eventually(reserved)
            if item == "salt":
                await handle.result()


@pytest.fixture
async def store(tmp_path: Path) -> SQLiteStore:
    """Two open sales and a closed one of the first deploy."""
    store = SQLiteStore(tmp_path / "shop.db", synchronous="normal")
    await run_shop(store, shop_v1.sale, "tea", "coffee", "salt")
    return store


async def test_the_same_code_is_safe_and_nothing_is_written(store: SQLiteStore) -> None:
    before = [(await store.load([row.run_id]))[row.run_id] for row in await store.list_runs(RunFilter())]
    seen: list[int] = []
    report = await derecho.check(store, [shop_v1.sale], processes=2, progress=lambda count, _: seen.append(count))
    assert (report.verdicts, report.closed) == ({"safe": 2}, {"safe": 1})
    assert (report.exit_status, report.problems, seen) == (0, [], [1, 2, 3])
    assert before == [(await store.load([row.run_id]))[row.run_id] for row in await store.list_runs(RunFilter())]
    await store.close()


async def test_a_change_without_a_patch_is_found_in_every_open_run(store: SQLiteStore) -> None:
    report = await derecho.check(store, [shop_v2.sale])
    assert report.verdicts == {"needs a patch": 2}
    assert report.exit_status == 1
    assert "sale 'sale-of-tea'" in str(report)
    assert "recorded   activity_scheduled 'reserve'" in str(report)
    assert "requested  activity_scheduled 'wrap'" in str(report)
    await store.close()


async def test_what_is_not_given_is_unknown(store: SQLiteStore) -> None:
    report = await derecho.check(store, [shop_v1.retired], closed=0)
    assert report.verdicts == {"unknown": 2}
    assert report.exit_status == 2
    assert "version 1 of workflow 'sale' is not among those given" in report.problems[0].reason
    await store.close()


async def test_a_patch_is_needed_until_the_last_run_of_the_old_path_has_ended(store: SQLiteStore) -> None:
    report = await derecho.check(store, [shop_v2.careful_sale])
    assert report.verdicts == {"safe": 2}
    [patch] = report.patches
    assert (patch.change, patch.old_path, patch.new_path) == ("wrap first", 2, 0)
    assert patch.places == ("shop_v2.py:24",)
    assert report.unneeded_patches == []

    await run_shop(store, shop_v2.careful_sale, "sugar")
    async with Client(store) as client:
        for item in ("tea", "coffee"):
            await client.get_by_id(f"sale-of-{item}").terminate()
    report = await derecho.check(store, [shop_v2.careful_sale])
    assert [(patch.old_path, patch.new_path) for patch in report.unneeded_patches] == [(0, 1)]
    assert "no open run needs its old path" in str(report)
    await store.close()


async def test_a_slip_that_would_block_open_runs_is_found(store: SQLiteStore) -> None:
    report = await derecho.check(store, [shop_v2.slipping_sale], closed=0)
    assert report.verdicts == {"needs a patch": 2}
    assert "NameError: name 'wrapp' is not defined (at testing/shop_v2.py:" in report.problems[0].reason
    await store.close()


async def test_workflows_inside_functions_are_checked_in_this_process(store: SQLiteStore) -> None:
    @derecho.workflow("sale")
    async def local(ctx: derecho.Context, item: str) -> list[str]:
        return [await shop_v1.reserve.execute(ctx, item), await ctx.signals(shop_v1.paid).receive()]

    report = await derecho.check(store, [local], closed=0)
    assert report.verdicts == {"safe": 2}
    await store.close()


async def test_the_command_line_has_an_exit_status_for_ci(store: SQLiteStore, tmp_path: Path) -> None:
    await store.close()

    def run(target: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "derecho", "check", target, "--store", f"sqlite:///{tmp_path}/shop.db"]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)

    good, bad = run("tests.testing.shop_v1"), run("tests.testing.shop_v2:sale")
    assert (good.returncode, bad.returncode) == (0, 1), good.stderr + bad.stderr
    assert "open runs: 2 safe" in good.stdout
    assert "open runs: 2 needs a patch" in bad.stdout
    with pytest.raises(SystemExit):
        main(["check", "tests.house.repository", "--store", "memory:"])


async def test_a_wrong_address_is_no_safe_deploy_and_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty store has no open run that is not safe."""
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE goods (name TEXT)")
    before = other.read_bytes()
    for path, reason in ((tmp_path / "missing.db", "there is no database to check"), (other, "holds no runs")):
        with pytest.raises(StoreError, match=reason):
            await check(f"sqlite:///{path}", [])
        with pytest.raises(SystemExit) as exit:
            await asyncio.to_thread(main, ["check", "tests.testing.shop_v1", "--store", f"sqlite:///{path}"])
        assert exit.value.code == 2
        assert reason in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["other.db"]
    assert other.read_bytes() == before


def test_a_wrong_module_is_told_and_is_not_taken_for_a_run_that_needs_a_patch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for target in ("no.such.module", "tests.testing.shop_v1:nothing"):
        with pytest.raises(SystemExit) as exit:
            main(["check", target, "--store", "memory:"])
        assert exit.value.code == 2
        assert "the workflows cannot be imported" in capsys.readouterr().err
