"""Which function applies which change, and how a transition takes effect whole or not at all."""

from collections.abc import Callable
from typing import Any

from derecho.journal import changes as ch
from derecho.stores.memory import runs, tasks
from derecho.stores.memory.tables import Tables
from derecho.stores.transitions import Stop

APPLY: dict[type[ch.Change], Callable[[Tables, Any], Any]] = {
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
_DONE = ch.Receipt()


def apply(tables: Tables, transition: ch.Transition) -> ch.Result:
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
    return ch.Receipt(tuple(delivered)) if delivered else _DONE
