"""Workflow code that reaches outside is stopped at the line that did it, with the remedy."""

import asyncio
import inspect
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from derecho import Context, DeterminismError, workflow
from tests.runtime.conftest import DriveOf


async def in_a_thread() -> None:
    await asyncio.to_thread(print, "hello")


async def in_an_executor() -> None:
    await asyncio.get_running_loop().run_in_executor(None, print)


async def a_connection() -> None:
    await asyncio.open_connection("localhost", 80)


async def a_server() -> None:
    await asyncio.start_server(lambda r, w: None, "localhost", 0)


async def a_subprocess() -> None:
    await asyncio.create_subprocess_exec("ls")


async def a_shell() -> None:
    await asyncio.create_subprocess_shell("ls")


async def a_name_look_up() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def a_signal_handler() -> None:
    asyncio.get_running_loop().add_signal_handler(15, print)


async def a_reader() -> None:
    asyncio.get_running_loop().add_reader(0, print)


async def another_thread() -> None:
    asyncio.get_running_loop().call_soon_threadsafe(print)


async def a_task_factory() -> None:
    asyncio.get_running_loop().set_task_factory(None)


async def stopping_the_loop() -> None:
    asyncio.get_running_loop().stop()


def a_file() -> None:
    Path(__file__).read_text()


def a_socket() -> None:
    socket.socket()


def a_thread() -> None:
    threading.Thread(target=print).start()


def a_process() -> None:
    subprocess.run(["ls"], check=False)


def a_command() -> None:
    os.system("true")


def a_database() -> None:
    sqlite3.connect(":memory:")


def a_temporary_file() -> None:
    tempfile.mkstemp()


def a_blocking_sleep() -> None:
    time.sleep(0.01)


BY_THE_LOOP: list[tuple[Callable[[], Any], str]] = [
    (in_a_thread, "a thread: put the call into an activity"),
    (in_an_executor, "a thread: put the call into an activity"),
    (a_connection, "the outside world: do it in an activity"),
    (a_server, "the outside world: do it in an activity"),
    (a_subprocess, "the outside world: do it in an activity"),
    (a_shell, "the outside world: do it in an activity"),
    (a_name_look_up, "the outside world: do it in an activity"),
    (a_signal_handler, "send the workflow a signal from outside"),
    (a_reader, "the outside world: do it in an activity"),
    (another_thread, "send the workflow a signal instead"),
    (a_task_factory, "the outside world: do it in an activity"),
    (stopping_the_loop, "the outside world: do it in an activity"),
]
BY_THE_GUARD: list[tuple[Callable[[], Any], str]] = [
    (a_file, "reached for files"),
    (a_socket, "reached for the network"),
    (a_process, "reached for other processes"),
    (a_command, "reached for other processes"),
    (a_database, "reached for a database"),
    (a_temporary_file, "reached for files"),
]
if sys.version_info >= (3, 13):  # the interpreter reports these two only from then on
    BY_THE_GUARD += [(a_thread, "reached for threads"), (a_blocking_sleep, "reached for the wall clock")]


@pytest.mark.parametrize(("reach", "remedy"), BY_THE_LOOP + BY_THE_GUARD)
def test_it_is_stopped_at_its_line_with_the_remedy(drive: DriveOf, reach: Callable[[], Any], remedy: str) -> None:
    @workflow
    async def reaches(ctx: Context) -> None:
        reached = reach()
        if inspect.isawaitable(reached):
            await reached

    with pytest.raises(DeterminismError, match=remedy) as caught:
        drive(reaches).begin()
    line = inspect.getsourcelines(reach)[1] + 1
    assert f"runtime/test_reaching_outside.py:{line}" in str(caught.value)


def test_the_run_is_blocked_only_if_its_code_does_not_catch_it(drive: DriveOf) -> None:
    @workflow
    async def careful(ctx: Context) -> str:
        try:
            a_file()
            return "here"
        except DeterminismError:
            return "not here"

    run = drive(careful)
    run.begin()
    assert run.result == "not here"


def test_imports_logging_and_tracebacks_are_let_through(drive: DriveOf) -> None:
    @workflow
    async def harmless(ctx: Context) -> str:
        import colorsys  # noqa: F401  (a module that nobody else has imported yet)
        import traceback

        try:
            raise ValueError("x")
        except ValueError:
            ctx.log.exception("it failed")
            return traceback.format_exc()

    run = drive(harmless)
    run.begin()
    assert "ValueError: x" in run.result


def test_the_guard_is_down_when_no_workflow_code_runs(drive: DriveOf) -> None:
    @workflow
    async def waits(ctx: Context) -> None:
        await ctx.sleep(1)

    drive(waits).begin()
    assert Path(__file__).read_text()


def test_a_context_does_not_work_outside_its_run(drive: DriveOf) -> None:
    leaked: list[Context] = []

    @workflow
    async def leaks(ctx: Context) -> None:
        leaked.append(ctx)
        await ctx.sleep(1)

    drive(leaks).begin()
    with pytest.raises(DeterminismError, match=r"used outside its workflow, at runtime/test_reaching_outside\.py"):
        leaked[0].sleep(1)


def test_time_zones_may_be_read_whether_or_not_this_process_has(drive: DriveOf) -> None:
    @workflow
    async def in_rome(ctx: Context) -> str:
        zoneinfo.ZoneInfo.clear_cache()
        return str(ctx.now().astimezone(zoneinfo.ZoneInfo("Europe/Rome")).tzinfo)

    run = drive(in_rome)
    run.begin()
    assert run.result == "Europe/Rome"
    run.check()
