"""DBOS Transact on the same machine, in the same run, beside Derecho: W1, W2, W2s and W3 on SQLite.

It lives in an environment of its own (`make bench-peers`), because its dependencies are none of ours.
"""

import subprocess
from pathlib import Path

import msgspec

from benchmarks.measure import Figure

NAME = "dbos"
DURABILITY = "SQLite WAL, FULL"
WORKLOADS = ("W1", "W2", "W2s", "W3")
ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-bench" / "bin" / "python"


def measure(workload: str, scale: float) -> list[Figure]:
    command = [str(PYTHON), str(ROOT / "benchmarks" / "dbos_child.py"), workload, str(scale)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=600)
    return msgspec.json.decode(done.stdout, type=list[Figure])
