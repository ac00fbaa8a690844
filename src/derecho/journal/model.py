"""The rows that stores keep and hand out, as plain data.

All instants are microseconds since 1970 UTC (`…_at`), all durations microseconds.
"""

from typing import Literal, TypeAlias

import msgspec

from derecho.clock import FOREVER
from derecho.journal.events import ClosePolicy

Status: TypeAlias = Literal[
    "running", "blocked", "cancelling", "completed", "failed", "cancelled", "terminated", "continued_as_new"
]
OPEN: frozenset[str] = frozenset({"running", "blocked", "cancelling"})

CLAIMED = FOREVER
"""`ready_at` of a run that a worker holds."""


class Head(msgspec.Struct, frozen=True, gc=False):
    """Where a history stands; what `Advance` compares."""

    tasks: int = 0
    events: int = 0
    digest: str = ""


class RunRow(msgspec.Struct, frozen=True, gc=False):
    """One run. Invariants: open runs of one `workflow_id` ≤ 1; `inbox_read` ≤ `inbox_last`; closed ⇒ no queue rows.

    `ready_at`: None while it only waits; an instant from which a worker may claim it; `CLAIMED` while one holds it.
    """

    run_id: str
    workflow_id: str
    workflow_type: str
    queue: str
    status: Status
    version: int
    chain_id: str
    started_at: int
    closed_at: int | None = None
    tasks: int = 0
    events: int = 0
    digest: str = ""
    inbox_last: int = 0
    inbox_read: int = 0
    ready_at: int | None = None
    claim: str | None = None
    worker: str | None = None
    crashes: int = 0
    blocked_reason: str | None = None
    blocked_count: int = 0
    parent_run_id: str | None = None
    parent_child: int | None = None
    close_policy: ClosePolicy | None = None
    outcome: str | None = None
    terminate: str | None = None

    @property
    def head(self) -> Head:
        return Head(self.tasks, self.events, self.digest)

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def kind(self) -> str:
        """What a worker has to serve to claim it."""
        return kind_of(self.workflow_type, self.version)


def kind_of(workflow_type: str, version: int) -> str:
    """A type, and behind a line feed, which no name has, its version unless that is 1."""
    return workflow_type if version == 1 else f"{workflow_type}\n{version}"


def type_and_version(kind: str) -> tuple[str, int]:
    """What `kind_of` put together."""
    workflow_type, _, version = kind.rpartition("\n")
    return (workflow_type, int(version)) if version.isdecimal() and workflow_type else (kind, 1)


class Message(msgspec.Struct, frozen=True, gc=False):
    """A fact in a run's inbox; numbered 1, 2, 3 … per run by the store, under the run row's lock."""

    number: int
    data: str


class ClaimedRun(msgspec.Struct, frozen=True, gc=False):
    """A workflow task: the run as it is now, and its unread messages in order."""

    run: RunRow
    messages: list[Message]


class ActivityRow(msgspec.Struct, frozen=True, gc=False):
    """A scheduled activity that has no outcome yet. `data` is its `ActivityScheduled` event as JSON.

    Unclaimed: claimable from `due_at`. Claimed: `claim`, `worker` and `started_at` are set. `timeout_at` is the next
    instant at which the timeout worker must look, None when nothing can run out. `close_at` is the
    schedule-to-close deadline.
    """

    run_id: str
    activity: int
    workflow_id: str
    workflow_type: str
    name: str
    queue: str
    data: str
    scheduled_at: int
    due_at: int
    attempt: int = 1
    timeout_at: int | None = None
    close_at: int | None = None
    claim: str | None = None
    worker: str | None = None
    started_at: int | None = None
    heartbeat: str | None = None
    last_failure: str | None = None
    cancel_requested: bool = False


class AttemptState(msgspec.Struct, frozen=True, gc=False):
    """What an engine must know of an activity that it runs: whose it is now, and whether it is still wanted."""

    run_id: str
    activity: int
    claim: str | None
    cancel_requested: bool


class TimerRow(msgspec.Struct, frozen=True, gc=False):
    """A pending timer. It fires by `DropTimer` and `Deliver` in one transition."""

    run_id: str
    timer: int
    fire_at: int


class WorkerRow(msgspec.Struct, frozen=True, gc=False):
    """A live engine: its claims are good until `lease_until`. `serves`: "workflow:<kind>" and "activity:<name>"."""

    worker: str
    name: str
    lease_until: int
    serves: list[str]


class OverdueActivity(msgspec.Struct, frozen=True, gc=False):
    """An activity that the timeout worker must judge: `lost` when the worker that held it is dead."""

    row: ActivityRow
    lost: bool


class RunFilter(msgspec.Struct, frozen=True, gc=False):
    """Which runs to list, newest first. `before` is the run id after which a page begins."""

    workflow_type: str | None = None
    status: Status | None = None
    workflow_id: str | None = None
    before: tuple[int, str] | None = None
    limit: int = 100


Topic = Literal["runs", "activities", "timers", "closed"]
