"""Environments in which a replay must not differ: processes with other hash seeds, zones, locales, flags, Pythons."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.house.repository import ROOT

SEEDS = ["0", "1", "7", "random"]
ZONES = ["UTC", "Asia/Kathmandu", "America/St_Johns"]
LOCALES = ["C", "tr_TR.UTF-8", "de_DE.UTF-8"]
MODES = [("", ""), ("-O", ""), ("", "gc=1"), ("", "gc=off")]


@dataclass(frozen=True)
class Environment:
    seed: str
    zone: str
    locale: str
    flag: str
    option: str
    python: str = sys.executable

    def replay(self, locales: Path) -> list[str]:
        """One line on what this process is, then one for each golden history."""
        command = [self.python, *self.flag.split(), "-m", "tests.reference.replaying", *self.option.split()]
        done = subprocess.run(
            command,
            env={
                **os.environ,
                "PYTHONHASHSEED": self.seed,
                "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
                "TZ": self.zone,
                "LC_ALL": self.locale,
                "LOCPATH": str(locales),
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        if done.returncode:
            raise AssertionError(f"{self}:\n{done.stderr[-2000:]}")
        return done.stdout.splitlines()


def few() -> list[Environment]:
    """Every seed, zone, locale and mode at least once."""
    return [Environment(seed, ZONES[n % 3], LOCALES[(n + 1) % 3], *MODES[(n + 2) % 4]) for n, seed in enumerate(SEEDS)]


def pairwise(pythons: list[str]) -> list[Environment]:
    """Every pair of two settings at least once, greedily; 24 or more of all 144 for each Python."""
    every = [
        Environment(seed, zone, locale, *mode, python)
        for seed, zone, locale, mode, python in itertools.product(SEEDS, ZONES, LOCALES, MODES, pythons)
    ]
    open_pairs = {pair for environment in every for pair in _pairs(environment)}
    chosen: list[Environment] = []
    while open_pairs or len(chosen) < 24:
        best = max((each for each in every if each not in chosen), key=lambda each: len(open_pairs & _pairs(each)))
        chosen.append(best)
        open_pairs -= _pairs(best)
    return chosen


def _pairs(it: Environment) -> set[tuple[tuple[str, str], ...]]:
    settings = {
        "seed": it.seed, "zone": it.zone, "locale": it.locale, "mode": it.flag + it.option, "python": it.python
    }  # fmt: skip
    return set(itertools.combinations(settings.items(), 2))


def build_locales(folder: Path) -> bool:
    """Make the locales that a minimal machine lacks; False when it cannot."""
    if shutil.which("localedef") is None:
        return False
    for name in LOCALES[1:]:
        source = name.partition(".")[0]
        subprocess.run(["localedef", "-i", source, "-f", "UTF-8", str(folder / name)], capture_output=True)
        if not (folder / name).exists():
            return False
    return True


def other_pythons(folder: Path) -> Iterator[str]:
    """Pythons of other minor versions that are installed, each in an environment with what Derecho needs."""
    places = [*Path.home().glob(".pyenv/versions/3.*/bin/python"), *map(Path, _on_path())]
    seen: set[tuple[int, ...]] = {sys.version_info[:2]}
    for python in places:
        asked = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True
        )
        version = tuple(map(int, asked.stdout.split()))
        if version < (3, 11) or version in seen:
            continue
        seen.add(version)
        home = folder / f"python{version[0]}.{version[1]}"
        subprocess.run([python, "-m", "venv", home], check=True, capture_output=True)
        needs = ["msgspec", "click", "cronsim"]
        subprocess.run([home / "bin" / "pip", "install", "-q", *needs], check=True, capture_output=True)
        yield str(home / "bin" / "python")


def _on_path() -> list[str]:
    return [found for minor in range(11, 16) if (found := shutil.which(f"python3.{minor}")) is not None]
