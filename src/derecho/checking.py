"""Is it safe to deploy? Every open run of a live database, replayed against the code at hand.

It only reads. Histories are replayed in other processes, several at once, with another hash seed than here.
"""

import ast
import asyncio
import inspect
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from derecho.errors import DefinitionError, DerechoError, StoreError
from derecho.history import History
from derecho.isolation import Order, ReplayProcess, Report, Verdict, codec_path, judge, locate
from derecho.journal.model import OPEN, RunFilter, RunRow
from derecho.journal.payloads import Codec
from derecho.journal.store import Store
from derecho.stores import open_store
from derecho.workflow import WorkflowDefinition


class CheckedRun(NamedTuple):
    """A run, and what the code at hand would do to it; `reason` says why it is not safe."""

    workflow_id: str
    run_id: str
    workflow_type: str
    verdict: Verdict
    reason: str
    is_open: bool


class Patch(NamedTuple):
    """A `ctx.patched(change)`. `old_path`, `new_path`: open runs that went one way or the other at it."""

    change: str
    places: tuple[str, ...]
    old_path: int
    new_path: int


@dataclass
class CheckReport:
    """`verdicts` counts the open runs; `closed` the sampled closed ones, which the next deploy cannot harm.

    `problems`: the runs that are not safe. `patches`: those in the code, with the open runs at each.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    closed: Counter[Verdict] = field(default_factory=Counter)
    problems: list[CheckedRun] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)

    @property
    def checked(self) -> int:
        return self.verdicts.total() + self.closed.total()

    @property
    def unneeded_patches(self) -> list[Patch]:
        """No open run needs the old path any more: `ctx.patched` and the old path can be deleted.

        Empty as long as a run is unknown, because it might be one that does.
        """
        if self.verdicts["unknown"] or self.verdicts["needs a patch"]:
            return []
        return [patch for patch in self.patches if not patch.old_path]

    @property
    def exit_status(self) -> int:
        """0: every open run is safe. 1: one needs a patch. 2: none does, but of one it is not known."""
        return 1 if self.verdicts["needs a patch"] else 2 if self.verdicts["unknown"] else 0

    def __str__(self) -> str:
        lines = [f"open runs: {_counts(self.verdicts)}", f"closed runs tried: {_counts(self.closed)}"]
        for run in self.problems:
            state = "" if run.is_open else ", closed"
            reason = run.reason.replace("\n", "\n    ")
            lines.append(
                f"{run.workflow_type} {run.workflow_id!r} (run {run.run_id}{state}): {run.verdict}\n    {reason}"
            )
        for patch in self.patches:
            what = "no open run needs its old path" if patch in self.unneeded_patches else "stays"
            places = ", ".join(patch.places)
            lines.append(
                f"ctx.patched({patch.change!r}) at {places}: {patch.old_path} open runs took the old path, "
                f"{patch.new_path} the new one: {what}"
            )
        return "\n".join(lines)


def _counts(verdicts: "Counter[Verdict]") -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())) or "none"


Progress = Callable[[int, str], None]


async def check(
    store: Store | str,
    workflows: Sequence[WorkflowDefinition],
    *,
    closed: int = 20,
    processes: int | None = None,
    codec: Codec | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Replay every open run of a database, and the newest `closed` closed ones, against these workflows.

    Per open run: "safe"; "needs a patch" when code and history differ, or the code has a slip; "unknown" when its type
    or version is not among `workflows`, or its history cannot be read. Nothing is written.

    Args:
        processes: replays at once, one per CPU by default; 0 replays in this process, as do workflows that are defined
            inside functions, where no other process finds them. Other processes make a codec by its class alone.
        progress: called with the number of runs checked and the workflow id of the last.
    """
    opened = open_store(store) if isinstance(store, str) else store
    if opened.url.startswith(_FILE):
        _must_hold_runs(opened.url)
    checker = _Checker(opened, workflows, codec, progress)
    count = (os.cpu_count() or 1) if processes is None else processes
    try:
        await checker.run(closed, count)
    finally:
        if isinstance(store, str):
            await opened.close()
    return checker.finish(workflows)


_FILE = "sqlite:///"


def _must_hold_runs(url: str) -> None:
    """To open a store makes it; a deploy is not safe because the path of its database was wrong."""
    try:
        with closing(sqlite3.connect(f"{Path(url.removeprefix(_FILE)).as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_keys'").fetchone()
    except sqlite3.Error as exc:
        raise StoreError(f"there is no database to check at {url}: {exc}") from exc
    if found is None:
        raise StoreError(f"the database at {url} holds no runs: is this its address?")


class _Checker:
    def __init__(
        self, store: Store, workflows: Sequence[WorkflowDefinition], codec: Codec | None, progress: Progress | None
    ) -> None:
        self._store = store
        self._code = {(workflow.name, workflow.version): workflow for workflow in workflows}
        self._codec = codec
        self._progress = progress
        self._report = CheckReport()
        self._old: Counter[str] = Counter()
        self._new: Counter[str] = Counter()

    async def run(self, closed: int, processes: int) -> None:
        rows: asyncio.Queue[RunRow | None] = asyncio.Queue(maxsize=100)
        workers = [asyncio.create_task(self._work(rows, processes > 0)) for _ in range(max(1, processes))]
        feeding = asyncio.create_task(self._feed(rows, closed, len(workers)))
        try:
            await asyncio.gather(feeding, *workers)
        finally:
            for task in (feeding, *workers):
                task.cancel()
            await asyncio.gather(feeding, *workers, return_exceptions=True)

    async def _feed(self, rows: "asyncio.Queue[RunRow | None]", closed: int, workers: int) -> None:
        for status in sorted(OPEN):
            async for row in self._list(RunFilter(status=status)):  # type: ignore[arg-type]  # OPEN has statuses
                await rows.put(row)
        left = closed
        async for row in self._list(RunFilter()):
            if left <= 0:
                break
            if not row.is_open:
                left -= 1
                await rows.put(row)
        for _ in range(workers):
            await rows.put(None)

    async def _list(self, where: RunFilter) -> AsyncIterator[RunRow]:
        while True:
            page = await self._store.list_runs(where)
            for row in page:
                yield row
            if not page:
                return
            where = msgspec.structs.replace(where, before=(page[-1].started_at, page[-1].run_id))

    async def _work(self, rows: "asyncio.Queue[RunRow | None]", elsewhere: bool) -> None:
        process = ReplayProcess() if elsewhere else None
        try:
            while (row := await rows.get()) is not None:
                self._note(row, await self._judge(row, process))
        finally:
            if process is not None:
                await process.close()

    async def _judge(self, row: RunRow, process: ReplayProcess | None) -> Report:
        workflow = self._code.get((row.workflow_type, row.version))
        if workflow is None:
            have = [version for name, version in self._code if name == row.workflow_type]
            what = f"version {row.version} of workflow {row.workflow_type!r} is not among those given"
            return Report("unknown", f"{what}; its versions there: {', '.join(map(str, have)) or 'none'}")
        try:
            stored = (await self._store.load([row.run_id]))[row.run_id]
            history = History.from_rows(row.workflow_id, row.run_id, row.workflow_type, stored)
        except (DerechoError, msgspec.DecodeError) as exc:
            return Report("unknown", f"its history cannot be read: {exc}")
        if process is None or "<locals>" in workflow.fn.__qualname__:
            return await asyncio.to_thread(judge, workflow, history, self._codec)
        try:
            return await process.judge(Order(locate(workflow), history.dumps(), codec_path(self._codec)))
        except DefinitionError:
            return await asyncio.to_thread(judge, workflow, history, self._codec)
        except DerechoError as exc:
            return Report("unknown", str(exc))

    def _note(self, row: RunRow, report: Report) -> None:
        found = self._report
        (found.verdicts if row.is_open else found.closed)[report.verdict] += 1
        if report.verdict != "safe":
            reason = "\n".join([report.reason, *report.notes])
            place = (row.workflow_id, row.run_id, row.workflow_type)
            found.problems.append(CheckedRun(*place, report.verdict, reason, row.is_open))
        if row.is_open:
            for change, is_new in report.patches.items():
                (self._new if is_new else self._old)[change] += 1
        if self._progress is not None:
            self._progress(found.checked, row.workflow_id)

    def finish(self, workflows: Sequence[WorkflowDefinition]) -> CheckReport:
        places = patches_in(workflows)
        for change in sorted({*places, *self._old, *self._new}):
            where = tuple(places.get(change, ()))
            self._report.patches.append(Patch(change, where, self._old[change], self._new[change]))
        self._report.problems.sort(key=lambda run: (not run.is_open, run.verdict, run.workflow_id))
        return self._report


def patches_in(workflows: Sequence[WorkflowDefinition]) -> dict[str, list[str]]:
    """Every `….patched("change")` in the modules of these workflows, with its places."""
    found: dict[str, list[str]] = {}
    for module in {inspect.getmodule(workflow.fn) for workflow in workflows}:
        try:
            source, file = inspect.getsource(module or ast), getattr(module, "__file__", None) or ""
        except (OSError, TypeError):
            continue
        for node in ast.walk(ast.parse(source)):
            change = _patched(node)
            if change is not None:
                found.setdefault(change, []).append(f"{os.path.basename(file)}:{getattr(node, 'lineno', 0)}")
    return found


def _patched(node: Any) -> str | None:
    """The change that a call of `patched` names."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "patched":
        argument = node.args[0] if node.args else None
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return argument.value
    return None
