"""An activity's context without an engine: call the plain function, see what it reported.

with activity_context(attempt=2, last_heartbeat=41, resources={Shop: fake}) as act:
    await copy_files("a", "b")
assert act.heartbeats == [42, 43]
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from derecho.activity_context import ActivityContext, CancelReason, _current
from derecho.clock import from_datetime
from derecho.journal.model import ActivityRow
from derecho.journal.payloads import Codec, Converter


class TestedActivity(ActivityContext):
    """The context of an attempt that a test makes. `heartbeats` has the progress of each, None where there was none."""

    __test__ = False  # to pytest: this is no test

    def __init__(
        self, row: ActivityRow, codec: Codec | None, last_heartbeat: Any, resources: dict[type[Any], Any]
    ) -> None:
        converter = Converter(codec)
        progress = None if last_heartbeat is None else converter.encode(last_heartbeat, "last_heartbeat")
        super().__init__(row, converter=converter, beat=lambda: None, progress=progress, resources=resources)
        self.heartbeats: list[Any] = []

    def heartbeat(self, progress: Any = None) -> None:
        super().heartbeat(progress)
        self.heartbeats.append(progress)

    def cancel(self, reason: CancelReason = "requested") -> None:
        """From now on the attempt is cancelled, which its code sees as a flag; cancel its task to interrupt it."""
        self.cancel_reason = reason


@contextmanager
def activity_context(
    *,
    name: str = "activity",
    attempt: int = 1,
    workflow_id: str = "workflow-1",
    run_id: str = "run-1",
    scheduled_at: datetime | None = None,
    last_heartbeat: Any = None,
    resources: Mapping[type[Any], Any] | None = None,
    transaction: Any = None,
    codec: Codec | None = None,
) -> Iterator[TestedActivity]:
    """Inside the block `current_activity()` is this attempt; what the code reports is in `heartbeats`.

    `last_heartbeat` is what the attempt before reported; `transaction` stands in for a transactional one's connection.
    """
    at = from_datetime(scheduled_at or datetime.now(UTC))
    row = ActivityRow(run_id, 1, workflow_id, "test", name, "default", "", scheduled_at=at, due_at=at, attempt=attempt)
    context = TestedActivity(row, codec, last_heartbeat, dict(resources or {}))
    context._transaction = transaction
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
