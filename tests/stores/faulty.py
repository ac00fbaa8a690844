"""Means to make a database fail for real, or exactly where a test wants it."""

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from derecho.stores.sqlite import connection as files

ROOT_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

PRELUDE = """
import asyncio, os, resource, signal, sqlite3, sys
from derecho.errors import StoreError, StoreUnavailable
from derecho.journal.changes import CreateRun, Deliver, NewMessage, Receipt
from derecho.journal.model import RunRow
from derecho.stores.sqlite import SQLiteStore

# As in `derecho.testing.conformance.kit`, which would take a second to import.
def run_row(number=1):
    return RunRow(f"run-{number}", f"order-{number}", "order", "default", "running", 1, f"chain-{number}", 0)

def message(text="hello"):
    return NewMessage('{"type":"signal_received","name":"%s"}' % text)

def become_nobody():
    "File permissions mean nothing to root."
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)

def say(text):
    print(text, flush=True)
"""


def start_process(body: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process with a store at hand; `sys.argv[1:]` are the arguments."""
    program = PRELUDE + textwrap.dedent(body)
    environment = {**os.environ, "PYTHONPATH": os.path.join(ROOT_FOLDER, "src")}
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def run_process(body: str, *arguments: object) -> list[str]:
    """What another process says until it ends."""
    process = start_process(body, *arguments)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said.splitlines()


def hear(process: subprocess.Popen[str]) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> str:
    """Kill a process with SIGKILL; what it had said and nobody had heard."""
    process.kill()
    assert process.stdout is not None
    assert process.stdin is not None
    said = process.stdout.read()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    return said


class Connection:
    """A real connection in which some statements fail: `fault` gets the SQL and may raise before or after it runs."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self.real = real
        self.fault: Callable[[str, Callable[[], sqlite3.Cursor]], sqlite3.Cursor] = lambda sql, run: run()

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self.fault(sql, lambda: self.real.execute(sql, parameters))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def sqlite_error(code: int, text: str = "a fault") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_TEST"
    return error


def tap_writers(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections that stores write with from now on, in the order in which they are opened."""
    opened: list[Connection] = []
    open_writer: Any = files.open_writer

    def tapped(*arguments: Any, **options: Any) -> Connection:
        opened.append(Connection(open_writer(*arguments, **options)))
        return opened[-1]

    monkeypatch.setattr(files, "open_writer", tapped)
    return opened
