"""Which function applies which change."""

from collections.abc import Mapping

from derecho.journal import changes as ch
from derecho.stores.sqlite import runs, tasks
from derecho.stores.sqlite.transaction import Apply

APPLY: Mapping[type[ch.Change], Apply] = {
    ch.CreateRun: runs.create_run,
    ch.Advance: runs.advance,
    ch.Deliver: runs.deliver,
    ch.BlockRun: runs.block_run,
    ch.ReleaseRun: runs.release_run,
    ch.RequestTerminate: runs.request_terminate,
    ch.ForgetRun: runs.forget_run,
    ch.ScheduleActivity: tasks.schedule_activity,
    ch.RetryActivity: tasks.retry_activity,
    ch.FinishActivity: tasks.finish_activity,
    ch.CancelActivity: tasks.cancel_activity,
    ch.Heartbeat: tasks.heartbeat,
    ch.ScheduleTimer: tasks.schedule_timer,
    ch.DropTimer: tasks.drop_timer,
    ch.RegisterWorker: tasks.register_worker,
    ch.RenewWorker: tasks.renew_worker,
    ch.RetireWorker: tasks.retire_worker,
    ch.BuryWorker: tasks.bury_worker,
}
