"""What the SQLite store does to activities, timers and workers, one function for each change."""

from msgspec.json import encode
from msgspec.structs import astuple

from derecho.journal import changes as ch
from derecho.stores.sql import load
from derecho.stores.sqlite.runs import deliver
from derecho.stores.sqlite.transaction import Transaction
from derecho.stores.transitions import stop

_SQL = load("sqlite/tasks")
_INSERT_ACTIVITY, _FINISH_ACTIVITY = _SQL["insert_activity"], _SQL["finish_activity"]


def schedule_activity(tx: Transaction, change: ch.ScheduleActivity) -> None:
    row = change.row
    lost = row.claim is not None and not tx.is_alive(row.worker)
    tx.execute(_INSERT_ACTIVITY, (lost, *astuple(row)))
    if row.claim is None:
        tx.touched.add("activities")
    if lost:
        tx.touched.add("timers")
    tx.watch_deadline(row.timeout_at)


def retry_activity(tx: Transaction, change: ch.RetryActivity) -> None:
    if tx.execute(_SQL["retry_activity"], (*astuple(change), tx.now)).rowcount == 0:
        raise stop("not_found")
    tx.touched.add("activities")
    tx.watch_deadline(change.timeout_at)


def finish_activity(tx: Transaction, change: ch.FinishActivity) -> None:
    if tx.execute(_FINISH_ACTIVITY, (change.run_id, change.activity, change.claim)).rowcount == 0:
        raise stop("not_found")


def cancel_activity(tx: Transaction, change: ch.CancelActivity) -> None:
    place = (change.run_id, change.activity)
    if tx.execute(_SQL["flag_activity"], place).rowcount:
        return
    if tx.execute(_FINISH_ACTIVITY, (*place, None)).rowcount and change.message is not None:
        deliver(tx, ch.Deliver(change.message, run_id=change.run_id, drop=True))


def heartbeat(tx: Transaction, change: ch.Heartbeat) -> None:
    if tx.execute(_SQL["heartbeat"], astuple(change)).rowcount == 0:
        raise stop("not_found")
    tx.watch_deadline(change.timeout_at)


def schedule_timer(tx: Transaction, change: ch.ScheduleTimer) -> None:
    row = change.row
    tx.execute(_SQL["insert_timer"], (row.run_id, row.timer, row.fire_at))
    if row.fire_at < tx.horizon["timers"]:
        tx.touched.add("timers")


def drop_timer(tx: Transaction, change: ch.DropTimer) -> None:
    if tx.execute(_SQL["drop_timer"], (change.run_id, change.timer)).rowcount == 0 and change.must_exist:
        raise stop("not_found")


def register_worker(tx: Transaction, change: ch.RegisterWorker) -> None:
    row = change.row
    tx.execute(_SQL["register"], (row.worker, row.name, row.lease_until, encode(row.serves).decode()))
    tx.workers_changed()
    tx.watch_deadline(row.lease_until)


def renew_worker(tx: Transaction, change: ch.RenewWorker) -> None:
    if tx.execute(_SQL["renew"], (change.worker, change.lease_until)).rowcount == 0:
        raise stop("not_found")


def retire_worker(tx: Transaction, change: ch.RetireWorker) -> None:
    tx.execute(_SQL["retire"], (change.worker,))
    tx.workers_changed()
    _free_runs(tx, change.worker, crashes=0)
    if tx.execute(_SQL["hand_back_activities"], (change.worker, tx.now)).rowcount:
        tx.touched |= {"activities", "timers"}


def bury_worker(tx: Transaction, change: ch.BuryWorker) -> None:
    if tx.execute(_SQL["bury"], (change.worker, tx.now)).rowcount == 0:
        raise stop("not_found")
    tx.workers_changed()
    _free_runs(tx, change.worker, crashes=1)
    if tx.execute(_SQL["lose_activities"], (change.worker,)).rowcount:
        tx.touched.add("timers")


def _free_runs(tx: Transaction, worker: str, *, crashes: int) -> None:
    if tx.execute(_SQL["free_runs"], (worker, crashes, tx.now)).rowcount:
        tx.touched.add("runs")
