"""The pytest plugin: `derecho_env` for every way in which people run async tests."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from derecho.testing import Environment
from tests.testing.programs import charge, pay, yearly

PRELUDE = """
import asyncio, threading, unittest
from datetime import timedelta
import pytest
import derecho
from derecho import Context
from derecho.testing import Environment

@derecho.activity
async def charge(order: str) -> str:
    return "really"

@derecho.workflow
async def pay(ctx: Context, order: str) -> str:
    await ctx.sleep(timedelta(days=30))
    return await charge.execute(ctx, order)
"""

EVERY_STYLE = """
async def test_nobody_runs_it(derecho_env):
    derecho_env.stub_value(charge, "ch_1")
    assert await derecho_env.run(pay.bind("1")) == "ch_1"
    derecho_env.assert_called_with(charge, "1")

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_anyio_runs_it(derecho_env, anyio_backend):
    derecho_env.stub_value(charge, "ch_1")
    assert await derecho_env.run(pay.bind("1")) == "ch_1"

def test_it_runs_itself(derecho_env):
    derecho_env.stub_value(charge, "ch_1")
    assert asyncio.run(derecho_env.run(pay.bind("1"))) == "ch_1"

def test_no_thread_is_left():
    for thread in threading.enumerate():
        if thread.name.startswith("derecho"):
            thread.join(30)
            assert not thread.is_alive()

class TestUnittest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.env = await self.enterAsyncContext(Environment())

    async def test_it(self):
        self.env.stub_value(charge, "ch_1")
        self.assertEqual(await self.env.run(pay.bind("1")), "ch_1")
"""

ASYNCIO = """
@pytest.fixture
async def stubbed(derecho_env):
    derecho_env.stub_value(charge, "ch_1")
    await derecho_env.advance(60)
    return derecho_env

@pytest.mark.parametrize("n", range(6))
async def test_each_has_its_own(stubbed, n):
    stubbed.assert_not_called(charge)
    assert await stubbed.run(pay.bind(str(n))) == "ch_1"

async def test_what_was_not_told_fails_the_test(derecho_env):
    handle = await derecho_env.start(pay.bind("1")).handle()
    await derecho_env._world.advance(31 * 86_400_000_000)

async def test_the_first_error_counts(derecho_env):
    await derecho_env.start(pay.bind("1")).handle()
    await derecho_env._world.advance(31 * 86_400_000_000)
    raise ValueError("of the test")
"""


SCOPE = "asyncio_default_fixture_loop_scope=function"


def run_pytest(folder: Path, body: str, *options: str) -> str:
    (folder / "test_it.py").write_text(PRELUDE + textwrap.dedent(body))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=110)
    return done.stdout + done.stderr


def test_every_style_of_async_test_has_an_environment(tmp_path: Path) -> None:
    assert "5 passed" in (said := run_pytest(tmp_path, EVERY_STYLE, "-p", "no:asyncio")), said


def test_each_test_has_its_own_environment_under_pytest_asyncio_and_xdist(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, ASYNCIO, "-n", "1", "-o", "asyncio_mode=auto", "-o", SCOPE)
    assert "2 failed, 6 passed" in said, said
    assert "activity 'charge', which has no stub" in said
    assert "ValueError: of the test" in said


async def test_our_own_suite_has_the_fixture(derecho_env: Environment) -> None:
    derecho_env.stub_value(charge, "ch_1")
    assert await derecho_env.run(pay.bind("1")) == "ch_1"
    assert await derecho_env.run(yearly.bind(1)) == ["2027-01-01"]
