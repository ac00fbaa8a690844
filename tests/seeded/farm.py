"""Sow one bug at a time into a copy of the tree, and see which tests notice."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.house.repository import ROOT
from tests.seeded.bug import Bug

LIMIT = 240
"""Seconds after which a run is given up. That says nothing of the bug: a test that hangs has a limit of its own."""
_FAILED, _PASSED, _LATE = 1, 0, -1


@dataclass(frozen=True)
class Result:
    """How a run of tests ended. `names` are the tests that failed."""

    code: int
    names: list[str]
    output: str
    seconds: float

    @property
    def is_red(self) -> bool:
        return self.code == _FAILED

    @property
    def is_green(self) -> bool:
        return self.code == _PASSED


class Farm:
    """A copy of the tree, in which at most one bug stands at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignore = shutil.ignore_patterns("__pycache__", ".*_cache", ".venv*", "results")
        for name in ("src", "tests", "examples", "docs"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        for name in ("pyproject.toml", "README.md", "Makefile"):
            shutil.copy(ROOT / name, folder / name)
        self._stamps = itertools.count(1_000_000_000)

    @property
    def package(self) -> Path:
        return self.folder / "src" / "derecho"

    def test(self, bug: Bug) -> Result:
        """Run the bug's tests with the bug in the tree; the tree is as before afterwards."""
        before = bug.sow(self.package)
        self._stamp(before)
        try:
            return self.run(bug.tests, "-x")
        finally:
            for path, text in before.items():
                path.write_text(text, encoding="utf-8")
            self._stamp(before)

    def run(self, tests: Iterable[str], *options: str, limit: float = LIMIT) -> Result:
        tests = list(tests)
        files = sorted({f"tests/{test.partition('::')[0]}" for test in tests})
        names = " or ".join(sorted({name for test in tests for name in self._names(test)}))
        command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-rf", *options]
        begin = time.monotonic()
        try:
            done = subprocess.run(
                [*command, "--timeout", "60", "-k", names, *files],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder / "src"), "PYTHONHASHSEED": "0"},
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired as exc:
            return Result(_LATE, [], str(exc.stdout), limit)
        failed = re.findall(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
        output = (done.stdout + done.stderr)[-3_000:]
        return Result(done.returncode, failed, output, time.monotonic() - begin)

    def _names(self, test: str) -> list[str]:
        """The name of a test, or those of all in a file when none is given."""
        file, _, name = test.partition("::")
        return [name] if name else re.findall(r"def (test_\w+)", (self.folder / "tests" / file).read_text())

    def _stamp(self, paths: Iterable[Path]) -> None:
        """No two versions of a file have one time, so Python never takes the compiled form of another."""
        for path in paths:
            stamp = next(self._stamps)
            os.utime(path, (stamp, stamp))


def line(bug: Bug, result: Result) -> str:
    """One row of the report."""
    if result.is_red:
        killer = result.names[0].rpartition("::")[2] if result.names else "(the tests hung)"
    else:
        killer = "SURVIVED" if result.is_green else f"ERROR {result.code}"
    return f"{bug.name:<6} {bug.breaks:<5} {result.seconds:5.1f} s  {bug.says}\n{'':22}killed by {killer}"
