"""Fixtures: runs driven by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from derecho.workflow import WorkflowDefinition
from tests.support.drive import Drive

DriveOf = Callable[..., Drive]


@pytest.fixture
def drive() -> Iterator[DriveOf]:
    """`drive(workflow, *args)` gives a run that has not begun; all of them are taken down in the end."""
    drives: list[Drive] = []

    def make(workflow: WorkflowDefinition, *args: Any) -> Drive:
        drives.append(Drive(workflow, *args))
        return drives[-1]

    yield make
    for made in drives:
        made.close()
