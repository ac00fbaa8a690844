"""What a commit can do: a closed union of row-level facts, each with the one condition under which it conflicts.

A transition is a tuple of changes that takes effect whole or not at all. A batch of transitions is one transaction, but
a transition that conflicts is refused alone. Repeating a transition whose outcome was unknown is harmless: it is
recognised (`Receipt.repeated`) or conflicts without effect.
"""

from typing import Literal, TypeAlias

import msgspec

from derecho.journal.model import ActivityRow, Head, RunRow, Status, TimerRow, WorkerRow
from derecho.journal.wire import HistoryRow

ANY_CLAIM = "*"
"""Matches every claim state; only for closing a run by force."""

Reason: TypeAlias = Literal[
    "already_running",  # CreateRun: the workflow id has an open run (`detail` is its run id)
    "superseded",  # CreateRun: the newest run of the workflow id is not the expected one
    "not_found",  # no such run, activity, timer or worker
    "closed",  # the run is closed (`detail` is its status)
    "moved",  # the run's history is not where the change says
    "claimed",  # the claim is another's
    "unread",  # Advance that closes: messages came that it has not seen
    "full",  # the inbox has reached its limit
    "unfit",  # some text cannot be stored: a NUL character, half of a surrogate pair
]


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """Why a transition had no effect at all."""

    reason: Reason
    detail: str = ""


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A transition took effect. `delivered` has (run id, message number, claimed) for each `Deliver`, in order.

    The number is 0 for a message that was dropped, or whose key had been delivered before; `claimed` says whether the
    `Deliver`'s own claim was taken.
    """

    delivered: tuple[tuple[str, int, bool], ...] = ()
    repeated: bool = False


Result: TypeAlias = Receipt | Conflict


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A fact for an inbox, as JSON. At most one message with the same `key` enters the runs of one chain."""

    data: str
    key: str | None = None


class CreateRun(msgspec.Struct, frozen=True, gc=False):
    """Open a run with its first messages (the first is `WorkflowStarted`).

    Conflicts: "already_running" when the workflow id has an open run; "superseded" when `expect_latest` is given and
    the newest run of the workflow id is another (None: there is none). Repeated when the run id exists.
    `row.inbox_last` is the number of messages. With `refusal`, a conflict delivers that instead (to the parent);
    `acceptance` is delivered when the run was created. Both are dropped when the parent has closed.
    With `first`, the first workflow task is done already: it is stored, `row` stands behind it, and unless `keep_claim`
    the worker that did it lets the run sleep; "claimed" when that is not registered. Without `first`, the claim of
    such a worker does not count: the run is ready.
    """

    row: RunRow
    messages: tuple[NewMessage, ...]
    expect_latest: str | Literal[False] | None = False
    refusal: "Deliver | None" = None
    acceptance: "Deliver | None" = None
    first: HistoryRow | None = None
    keep_claim: bool = True


class Advance(msgspec.Struct, frozen=True, gc=False):
    """Append one workflow task and say how the run waits.

    Conflicts: "not_found"; "closed"; "moved" unless the run's head equals `seen`; "claimed" unless its claim equals
    `claim` (None: nobody's; `ANY_CLAIM`: whatever it is); "unread" when it closes (`status` is not an open one) and
    `inbox_last` differs from `inbox_seen`. Repeated when the history already has this row.
    Effects: the row is stored; messages up to `consume_to` are removed; crashes and block are cleared; the claim stays
    when `keep_claim`, else the run is ready at once if messages are left, and asleep if not. Closing removes the run's
    activities, timers and messages, and its message keys unless the chain goes on (`continues`).
    With `take`, a run that nobody holds is claimed by `worker` under that token, so that what begins in its worker
    (steps) is found again when the worker dies; "claimed" when `worker` is not registered.
    """

    run_id: str
    seen: Head
    row: HistoryRow
    events: int
    status: Status = "running"
    claim: str | None = None
    keep_claim: bool = False
    consume_to: int | None = None
    inbox_seen: int | None = None
    outcome: str | None = None
    continues: bool = False
    take: str | None = None
    worker: str | None = None


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Put a message into the inbox of a run (`run_id`) or of the open run of a workflow id.

    With `chain_id`, a run of that workflow id which belongs to another chain counts as not found: it is a stranger.
    Conflicts: "not_found", "closed" or "full" (more than `limit` unread). With `undelivered`, that message is delivered
    to `reply_to` instead of conflicting, and `delivered` on success; with `drop`, nothing is.
    A sleeping run becomes ready at once, a blocked one too; one that is asleep and not blocked is instead claimed by
    `worker` when `claim` is given, so that an engine which holds it warm can go on without a claim of its own.
    """

    message: NewMessage
    run_id: str | None = None
    workflow_id: str | None = None
    limit: int | None = None
    claim: str | None = None
    worker: str | None = None
    drop: bool = False
    reply_to: str | None = None
    delivered: NewMessage | None = None
    undelivered: NewMessage | None = None
    chain_id: str | None = None


class BlockRun(msgspec.Struct, frozen=True, gc=False):
    """Mark a run as blocked and let it go until `retry_at`; its crashes are forgotten. Conflicts like `Advance`."""

    run_id: str
    seen: Head
    claim: str | None
    reason: str
    retry_at: int


class ReleaseRun(msgspec.Struct, frozen=True, gc=False):
    """Give a claim back, work undone. Conflicts: "claimed" unless `claim` is the run's; "not_found"; "closed".

    The run is ready at once; with `ready=False` only if it has unread messages, else asleep."""

    run_id: str
    claim: str
    ready: bool = True


class RequestTerminate(msgspec.Struct, frozen=True, gc=False):
    """Ask whoever comes first to close this run at once, or the open run of its chain if it continued as new.

    No conflict: a closed chain or an unknown run is left alone."""

    run_id: str
    reason: str


class ScheduleActivity(msgspec.Struct, frozen=True, gc=False):
    """Add an activity row, unclaimed or already claimed by the engine that commits it. Never conflicts by itself."""

    row: ActivityRow


class RetryActivity(msgspec.Struct, frozen=True, gc=False):
    """End an attempt and make the activity due again; one whose cancellation was requested is due at once, so that
    whoever claims it can end it. Conflicts: "not_found" unless claimed by `claim`."""

    run_id: str
    activity: int
    claim: str
    attempt: int
    due_at: int
    timeout_at: int | None
    last_failure: str | None


class FinishActivity(msgspec.Struct, frozen=True, gc=False):
    """Remove an activity that has its outcome. Conflicts: "not_found" unless its claim is `claim` (None: nobody's)."""

    run_id: str
    activity: int
    claim: str | None


class CancelActivity(msgspec.Struct, frozen=True, gc=False):
    """The workflow no longer wants it. A claimed activity is flagged; an unclaimed one is removed and `message`, if
    any, goes to its run. Never conflicts: an activity that is gone has its outcome under way."""

    run_id: str
    activity: int
    message: NewMessage | None = None


class Heartbeat(msgspec.Struct, frozen=True, gc=False):
    """Store progress and push the heartbeat deadline. Conflicts: "not_found" unless claimed by `claim`."""

    run_id: str
    activity: int
    claim: str
    details: str | None
    timeout_at: int | None


class ScheduleTimer(msgspec.Struct, frozen=True, gc=False):
    """Add a timer. Never conflicts by itself."""

    row: TimerRow


class DropTimer(msgspec.Struct, frozen=True, gc=False):
    """Remove a timer: it fires (`must_exist`: conflicts with "not_found" when it is gone) or is cancelled."""

    run_id: str
    timer: int
    must_exist: bool = False


class RegisterWorker(msgspec.Struct, frozen=True, gc=False):
    """Add an engine to the live ones, or replace what it serves."""

    row: WorkerRow


class RenewWorker(msgspec.Struct, frozen=True, gc=False):
    """Push an engine's lease. Conflicts: "not_found" when it was declared dead; all its claims are gone then."""

    worker: str
    lease_until: int


class RetireWorker(msgspec.Struct, frozen=True, gc=False):
    """An engine leaves: its runs are ready and its activities due at once, the same attempt. Never conflicts."""

    worker: str


class BuryWorker(msgspec.Struct, frozen=True, gc=False):
    """An engine is dead: its runs are ready at once with one crash more. Its activities stay for the timeout worker.

    Conflicts: "not_found" unless it is registered and its lease has run out."""

    worker: str


class ForgetRun(msgspec.Struct, frozen=True, gc=False):
    """Remove a closed run and its history. Conflicts: "not_found"; "claimed" when it is open."""

    run_id: str


Change: TypeAlias = (
    CreateRun
    | Advance
    | Deliver
    | BlockRun
    | ReleaseRun
    | RequestTerminate
    | ScheduleActivity
    | RetryActivity
    | FinishActivity
    | CancelActivity
    | Heartbeat
    | ScheduleTimer
    | DropTimer
    | RegisterWorker
    | RenewWorker
    | RetireWorker
    | BuryWorker
    | ForgetRun
)
Transition: TypeAlias = tuple[Change, ...]


def is_fresh(result: Result) -> bool:
    """Whether this very sending took effect."""
    return isinstance(result, Receipt) and not result.repeated and all(number for _, number, _ in result.delivered)
