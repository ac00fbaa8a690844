"""What the memory store does to activities, timers and workers, one function for each change."""

from msgspec.structs import replace

from derecho.journal import changes as ch
from derecho.journal.model import ActivityRow
from derecho.stores.memory.runs import deliver, let_go
from derecho.stores.memory.tables import Tables
from derecho.stores.transitions import stop


def schedule_activity(tables: Tables, change: ch.ScheduleActivity) -> None:
    row, place = change.row, (change.row.run_id, change.row.activity)
    if row.claim is not None and row.worker not in tables.workers:
        tables.put(tables.lost, place, None)
        tables.touched.add("timers")
    elif tables.lost:
        tables.drop(tables.lost, place)
    tables.put_activity(row)


def _claimed(tables: Tables, run_id: str, activity: int, claim: str | None) -> ActivityRow:
    row = tables.activity((run_id, activity))
    if row is None or row.claim != claim:
        raise stop("not_found")
    return row


def _remove(tables: Tables, row: ActivityRow) -> None:
    tables.drop(tables.activities[row.run_id], row.activity)
    if tables.lost:
        tables.drop(tables.lost, (row.run_id, row.activity))


def retry_activity(tables: Tables, change: ch.RetryActivity) -> None:
    row = _claimed(tables, change.run_id, change.activity, change.claim)
    tables.drop(tables.lost, (row.run_id, row.activity))
    tables.put_activity(
        replace(
            row,
            claim=None,
            worker=None,
            started_at=None,
            attempt=change.attempt,
            due_at=tables.now if row.cancel_requested else change.due_at,
            timeout_at=change.timeout_at,
            last_failure=change.last_failure,
        )
    )


def finish_activity(tables: Tables, change: ch.FinishActivity) -> None:
    _remove(tables, _claimed(tables, change.run_id, change.activity, change.claim))


def cancel_activity(tables: Tables, change: ch.CancelActivity) -> None:
    row = tables.activity((change.run_id, change.activity))
    if row is None:
        return
    if row.claim is not None:
        tables.put_activity(replace(row, cancel_requested=True))
        return
    _remove(tables, row)
    if change.message is not None:
        deliver(tables, ch.Deliver(change.message, run_id=row.run_id, drop=True))


def heartbeat(tables: Tables, change: ch.Heartbeat) -> None:
    row = _claimed(tables, change.run_id, change.activity, change.claim)
    tables.put_activity(replace(row, heartbeat=change.details, timeout_at=change.timeout_at))


def schedule_timer(tables: Tables, change: ch.ScheduleTimer) -> None:
    row = change.row
    tables.put(tables.inner(tables.timers, row.run_id), row.timer, row)
    tables.timer_queue.add(row.fire_at, (row.run_id, row.timer))
    tables.watch("timers", row.fire_at)


def drop_timer(tables: Tables, change: ch.DropTimer) -> None:
    of_run = tables.timers.get(change.run_id, {})
    if change.must_exist and change.timer not in of_run:
        raise stop("not_found")
    tables.drop(of_run, change.timer)


def register_worker(tables: Tables, change: ch.RegisterWorker) -> None:
    tables.put(tables.workers, change.row.worker, change.row)
    tables.watch("timeouts", change.row.lease_until)


def renew_worker(tables: Tables, change: ch.RenewWorker) -> None:
    row = tables.workers.get(change.worker)
    if row is None:
        raise stop("not_found")
    tables.put(tables.workers, change.worker, replace(row, lease_until=change.lease_until))


def retire_worker(tables: Tables, change: ch.RetireWorker) -> None:
    tables.drop(tables.workers, change.worker)
    _free_runs(tables, change.worker, crashed=False)
    for row in _held_by(tables, change.worker):
        tables.drop(tables.lost, (row.run_id, row.activity))
        tables.put_activity(
            replace(row, claim=None, worker=None, started_at=None, due_at=tables.now, timeout_at=row.close_at)
        )


def bury_worker(tables: Tables, change: ch.BuryWorker) -> None:
    row = tables.workers.get(change.worker)
    if row is None or row.lease_until > tables.now:
        raise stop("not_found")
    tables.drop(tables.workers, change.worker)
    _free_runs(tables, change.worker, crashed=True)
    for held in _held_by(tables, change.worker):
        tables.put(tables.lost, (held.run_id, held.activity), None)
        tables.touched.add("timers")


def _free_runs(tables: Tables, worker: str, *, crashed: bool) -> None:
    for run_id in tables.open_runs.values():
        run = tables.runs[run_id]
        if run.worker == worker:
            tables.put_run(replace(let_go(run, tables.now), crashes=run.crashes + crashed))


def _held_by(tables: Tables, worker: str) -> list[ActivityRow]:
    return [row for of_run in tables.activities.values() for row in of_run.values() if row.worker == worker]
