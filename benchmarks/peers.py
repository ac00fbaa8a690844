"""DBOS Transact on the same machine and database server, in the same run, beside Derecho.

It lives in an environment of its own (`make bench-peers`), because its dependencies are none of ours.
"""

import subprocess
from pathlib import Path

import msgspec

from benchmarks.measure import Figure

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-bench" / "bin" / "python"
WORKLOADS = ("W1", "W2", "W2s", "W3", "W4", "W6", "W8", "P1")
BESIDE = {"sqlite": "dbos-sqlite", "postgres": "dbos-postgres"}
"""Like with like: the peer's store that has the durability of ours."""


def measure(workload: str, store: str, scale: float, url: str) -> list[Figure]:
    command = [str(PYTHON), "-m", "benchmarks.dbos_child", workload, str(scale), store, url]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=900)
    return msgspec.json.decode(done.stdout, type=list[Figure])
