"""Replays in processes of their own, with another hash seed: what differs there differs after the next deploy.

A child finds the workflow by its module and name, as any worker of the new code does, and replays what it is sent:
one JSON line in, one out.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from types import ModuleType
from typing import Any, Literal

import msgspec

from derecho.errors import DefinitionError, DerechoError, NondeterminismError, PayloadError
from derecho.history import History
from derecho.journal.payloads import Codec
from derecho.replay import replay_history
from derecho.runtime.source import place_of
from derecho.workflow import WorkflowDefinition

Verdict = Literal["safe", "needs a patch", "unknown"]

_PROGRAM = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from derecho.isolation import main; main()"


class Location(msgspec.Struct, frozen=True):
    """Where another process finds a workflow: its module, its name there, and the file if nobody can import that."""

    module: str
    name: str
    file: str | None


class Order(msgspec.Struct, frozen=True):
    """A history to replay, as exported; with `codec`, by that class."""

    workflow: Location
    history: str
    codec: str | None = None


class Report(msgspec.Struct, frozen=True):
    """What came of it. `patches`: those that the code asked for, and whether this run has the new path."""

    verdict: Verdict
    reason: str = ""
    notes: list[str] = []
    patches: dict[str, bool] = {}


def locate(workflow: WorkflowDefinition) -> Location:
    """Raises DefinitionError for a workflow that only this process can find."""
    module, name = workflow.fn.__module__, workflow.fn.__qualname__
    if "<locals>" in name:
        raise DefinitionError(
            f"workflow {workflow.name!r} is defined inside a function, where another process cannot find it: "
            "move it to the top of its module"
        )
    return Location(module, name, getattr(sys.modules.get(module), "__file__", None))


def codec_path(codec: Codec | None) -> str | None:
    return None if codec is None else f"{type(codec).__module__}:{type(codec).__qualname__}"


def find(location: Location) -> WorkflowDefinition:
    value: Any = _module(location)
    for part in location.name.split("."):
        value = getattr(value, part)
    if not isinstance(value, WorkflowDefinition):
        raise DefinitionError(f"{location.module}:{location.name} is no workflow in another process")
    return value


def _module(location: Location) -> ModuleType:
    if location.module in sys.modules and location.module != "__main__":
        return sys.modules[location.module]
    try:
        if location.module != "__main__":
            return importlib.import_module(location.module)
    except ModuleNotFoundError:
        if location.file is None:
            raise
    name = "__derecho_main__" if location.module == "__main__" else location.module
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, location.file or "")
    if spec is None or spec.loader is None:
        raise DefinitionError(f"{location.file} is no module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judge(workflow: WorkflowDefinition, history: History, codec: Codec | None = None) -> Report:
    """Replay one history; what goes wrong is the report."""
    patches: dict[str, bool] = {}
    try:
        replay_history(workflow, history, codec=codec, patches=patches)
    except NondeterminismError as exc:
        return Report("needs a patch", str(exc), list(getattr(exc, "__notes__", [])), patches)
    except PayloadError as exc:
        return Report("unknown", f"PayloadError: {exc}", list(getattr(exc, "__notes__", [])), patches)
    except Exception as exc:  # the run would be blocked
        return Report("needs a patch", f"{type(exc).__name__}: {exc} (at {place_of(exc)})", [], patches)
    return Report("safe", patches=patches)


def replay_elsewhere(workflow: WorkflowDefinition, histories: list[History], codec: Codec | None) -> list[Report]:
    """Replay them all in one other process."""
    location, coding = locate(workflow), codec_path(codec)
    lines = [msgspec.json.encode(Order(location, history.dumps(), coding)) + b"\n" for history in histories]
    done = subprocess.run(_command(), input=b"".join(lines), stdout=subprocess.PIPE, env=_environment(), check=False)  # noqa: S603  (this Python)
    reports = [msgspec.json.decode(line, type=Report) for line in done.stdout.splitlines()]
    if len(reports) != len(histories):
        raise DerechoError(f"the process that replays ended with code {done.returncode}; its stderr has the reason")
    return reports


class ReplayProcess:
    """A child that judges one history after another."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def judge(self, order: Order) -> Report:
        """Raises DerechoError when the child dies of it."""
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *_command(), stdin=PIPE, stdout=PIPE, env=_environment(), limit=2**26
            )
        process = self._process
        assert process.stdin is not None  # noqa: S101  (asked for above)
        assert process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except ConnectionError:
            line = b""
        if not line:
            await self.close()
            raise DerechoError("the process that replays died; its stderr has the reason")
        return msgspec.json.decode(line, type=Report)

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


def _command() -> list[str]:
    return [sys.executable, "-c", _PROGRAM, json.dumps([os.path.abspath(path) for path in sys.path])]


def _environment() -> dict[str, str]:
    """Another order of sets than here."""
    seed = "7" if os.environ.get("PYTHONHASHSEED") != "7" else "11"
    return {**os.environ, "PYTHONHASHSEED": seed}


def main() -> None:
    """The child: what code prints must not come between its answers."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order)
        try:
            codec = None if order.codec is None else _codec(order.codec)
            report = judge(find(order.workflow), History.loads(order.history), codec)
        except Exception as exc:  # of the import, of the codec: the parent is to hear of it
            report = Report("unknown", f"{type(exc).__name__}: {exc}")
        answers.write(msgspec.json.encode(report).decode() + "\n")
        answers.flush()


def _codec(path: str) -> Codec:
    module, _, name = path.partition(":")
    codec: Codec = getattr(importlib.import_module(module), name)()
    return codec
