"""The golden histories: files in `tests/histories/VERSION/WORKFLOW`, and their checksums."""

import hashlib
from pathlib import Path

from derecho import History
from tests.house.repository import ROOT

HISTORIES = ROOT / "tests" / "histories"
CHECKSUMS = HISTORIES / "checksums.txt"


def golden() -> list[Path]:
    """The files of the corpus, of all versions."""
    return sorted(HISTORIES.glob("*/*/*.jsonl"))


def load(path: Path) -> History:
    return History.loads(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(HISTORIES).as_posix()


def checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
