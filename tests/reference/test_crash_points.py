"""Fourteen workflows, a fault at every place where one can strike: each ends as it does without. (G9, G10, G17, G36)

`DERECHO_CRASHES=all` tries every place, and pairs; else a sample that is the same each time.
"""

import asyncio
import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from derecho import Handle
from derecho.stores.sqlite import SQLiteStore
from derecho.testing import CrashReport, Environment
from tests.reference.activities import ACTIVITIES
from tests.reference.scenarios import MAKERS, Scenario
from tests.reference.workflows import REFERENCE

THOROUGH = os.environ.get("DERECHO_CRASHES") == "all"
KINDS = {"die_before", "die_after", "error_before", "error_after", "twice", "pause_before", "pause_after", "evict"}
VARIANTS = {
    "aggregator": 3,
    "desk": 2,
    "importing": 3,
    "poller": 2,
    "outbox": 3,
    "booking": 1,
    "approval": 1,
    "tree": 5,
}
"""Of the others the first: the plain case."""
SHORT = {"approval", "aggregator"}
"""Every place of these is tried each time."""
CASES = {name: Scenario(name, *make(VARIANTS.get(name, 0))) for name, make in MAKERS.items()}


def environment(folder: Path) -> Environment:
    """The one workflow that writes rows of its own needs a database."""
    files = count()
    return Environment(store=lambda clock: SQLiteStore(folder / f"{next(files)}.db", synchronous="normal", clock=clock))


def test_each_reference_workflow_has_its_case() -> None:
    assert len(CASES) == len(MAKERS) == 14


@pytest.mark.parametrize("name", CASES)
async def test_a_fault_anywhere_changes_no_end(name: str, tmp_path: Path) -> None:
    report = await explored(CASES[name], environment(tmp_path) if name == "booking" else Environment())
    print(f"{name}: {report.crash_points} faults, {report.attempts} attempts, {dict(report.faults)}")
    assert report.outcome.status == ("WorkflowCancelled" if name == "tenant" else "completed")
    assert len(KINDS & set(report.faults)) >= (len(KINDS) if THOROUGH else 6)
    assert report.attempts >= report.crash_points
    assert report.crash_points >= (40 if THOROUGH else 10)


async def explored(case: Scenario, env: Environment) -> CrashReport[Any]:
    env.use_real(*ACTIVITIES, *REFERENCE.values())
    signals = [(nudge.signal, nudge.value) for nudge in case.nudges if nudge.signal is not None]
    return await env.explore_crashes(
        case.call,
        signals=signals,
        drive=cancels if any(nudge.what == "cancel" for nudge in case.nudges) else None,
        limit=None if THOROUGH or case.id in SHORT else 2,
        pairs=100 if THOROUGH else 2,
    )


async def cancels(handle: Handle[Any]) -> None:
    """In the middle of the first month."""
    while "timer_scheduled" not in [event["type"] for event in await handle.history()]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    await handle.cancel("no longer wanted")
