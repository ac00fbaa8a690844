"""Where things lie in the repository, for the tests of the house rules."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "derecho"


def package_files(*suffixes: str) -> list[Path]:
    """The files of the package with one of these suffixes, in a stable order."""
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in suffixes)


def tracked_files() -> list[Path]:
    """What git knows: never caches, environments or scratch files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"
