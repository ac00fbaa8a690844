"""Which function applies which change."""

from collections.abc import Mapping

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
    RegisterWorker,
    ReleaseRun,
    RenewWorker,
    RequestTerminate,
    RetireWorker,
    RetryActivity,
    ScheduleActivity,
    ScheduleTimer,
)
from derecho.stores.sqlite import runs, tasks
from derecho.stores.sqlite.transaction import Apply

APPLY: Mapping[type[Change], Apply] = {
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
