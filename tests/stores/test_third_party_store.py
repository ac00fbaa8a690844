"""A store of somebody else's passes the suite by one fixture; one that is wrong does not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from derecho import MemoryStore, Store
from derecho.clock import Clock
from derecho.testing.conformance import *  # noqa: F403  # the suite is imported as a whole
from derecho.testing.conformance import StoreFactory

WRONG = """
import pytest
from derecho.journal.changes import Receipt
from derecho import MemoryStore
from derecho.testing.conformance import *

class Forgetful(MemoryStore):
    '''Says of every fourth commit that it is done, and does nothing.'''
    count = 0
    async def commit(self, transitions):
        Forgetful.count += 1
        done = await super().commit(transitions if Forgetful.count % 4 else [])
        return done or [Receipt()] * len(transitions)

@pytest.fixture
def new_store():
    return lambda clock: Forgetful(clock=clock)
"""


class Counting:
    """A store that counts calls, and has another do the work."""

    def __init__(self, clock: Clock) -> None:
        self._inner = MemoryStore(clock=clock)
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        self.calls += 1
        return getattr(self._inner, name)


@pytest.fixture
def new_store() -> StoreFactory:
    return lambda clock: cast(Store, Counting(clock))


def test_a_wrong_store_fails(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text(WRONG)
    few = ["-k", "TestDeliver or TestAdvance"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *few, str(tmp_path)],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        cwd=tmp_path,
        timeout=110,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert " failed, " in done.stdout
