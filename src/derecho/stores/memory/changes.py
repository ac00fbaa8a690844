"""Which function applies which change, and how a transition takes effect whole or not at all."""

from collections.abc import Callable
from typing import Any

from derecho.journal.changes import (
    Advance,
    BlockRun,
    BuryWorker,
    CancelActivity,
    Change,
    CreateRun,
    Deliver,
    DropTimer,
    FinishActivity,
    ForgetRun,
    Heartbeat,
    Receipt,
    RegisterWorker,
    ReleaseRun,
    RenewWorker,
    RequestTerminate,
    Result,
    RetireWorker,
    RetryActivity,
    ScheduleActivity,
    ScheduleTimer,
    Transition,
)
from derecho.stores.memory import runs, tasks
from derecho.stores.memory.tables import Tables
from derecho.stores.transitions import Stop

APPLY: dict[type[Change], Callable[[Tables, Any], Any]] = {
    CreateRun: runs.create_run,
    Advance: runs.advance,
    Deliver: runs.deliver,
    BlockRun: runs.block_run,
    ReleaseRun: runs.release_run,
    RequestTerminate: runs.request_terminate,
    ForgetRun: runs.forget_run,
    ScheduleActivity: tasks.schedule_activity,
    RetryActivity: tasks.retry_activity,
    FinishActivity: tasks.finish_activity,
    CancelActivity: tasks.cancel_activity,
    Heartbeat: tasks.heartbeat,
    ScheduleTimer: tasks.schedule_timer,
    DropTimer: tasks.drop_timer,
    RegisterWorker: tasks.register_worker,
    RenewWorker: tasks.renew_worker,
    RetireWorker: tasks.retire_worker,
    BuryWorker: tasks.bury_worker,
}
_DONE = Receipt()


def apply(tables: Tables, transition: Transition) -> Result:
    """One transition, whole or not at all; its text has been found fit."""
    mark = len(tables.undo)
    delivered: list[tuple[str, int, bool]] = []
    try:
        for change in transition:
            outcome = APPLY[type(change)](tables, change)
            if outcome is not None:
                delivered.append(outcome)
    except Stop as stopped:
        tables.roll_back(mark)
        return stopped.result
    return Receipt(tuple(delivered)) if delivered else _DONE
