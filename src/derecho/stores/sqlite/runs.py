"""What the SQLite store does to runs and their inboxes, one function for each change."""

from typing import Any

from msgspec.structs import astuple, replace

from derecho.journal import changes as ch
from derecho.journal.model import CLAIMED, OPEN, Head
from derecho.stores.sql import load
from derecho.stores.sqlite.transaction import Transaction
from derecho.stores.transitions import REPEATED, Stop, stop

_SQL = load("sqlite/runs")
_ADVANCE, _ADVANCE_AND_MARK, _CLOSE = _SQL["advance"], _SQL["advance_and_mark"], _SQL["close"]
_INSERT_HISTORY, _INSERT_MESSAGE, _CONSUME = _SQL["insert_history"], _SQL["insert_message"], _SQL["consume"]
_TARGET, _TARGET_OF_WORKFLOW = _SQL["target"], _SQL["target_of_workflow"]
_DROP_ACTIVITIES, _DROP_TIMERS = _SQL["drop_activities"], _SQL["drop_timers"]
_COUNT_MESSAGE, _WAKE = _SQL["count_message"], _SQL["wake"]


def create_run(tx: Transaction, change: ch.CreateRun) -> None:
    row = change.row
    if tx.one(_SQL["run_exists"], (row.run_id,)) is not None:
        raise Stop(REPEATED)
    latest, number, closed_at = tx.one(_SQL["newest"], (row.workflow_id,)) or ("", 0, 0)
    problem = None
    if closed_at is None:
        problem = stop("already_running", latest)
    elif change.expect_latest is not False and (change.expect_latest or "") != latest:
        problem = stop("superseded", latest)
    elif change.first is not None and not tx.is_alive(row.worker):
        problem = stop("claimed")
    if problem is not None:
        if change.refusal is None:
            raise problem
        deliver(tx, change.refusal)
        return
    claimed = row.claim is not None and tx.is_alive(row.worker)
    ready_at = tx.now if row.ready_at is None or row.ready_at == CLAIMED else row.ready_at
    keep = claimed and change.keep_claim
    stored = replace(
        row,
        inbox_last=len(change.messages),
        inbox_read=0,
        ready_at=CLAIMED if keep else None if claimed else ready_at,
        claim=row.claim if keep else None,
        worker=row.worker if keep else None,
    )
    tx.execute(_SQL["insert_run"], (number + 1, *astuple(stored)))
    if change.first is not None:
        tx.execute(_INSERT_HISTORY, (row.run_id, *astuple(change.first)))
    for position, message in enumerate(change.messages, start=1):
        _put_message(tx, row.run_id, row.chain_id, position, message)
    if not claimed:
        tx.touched.add("runs")
    if change.acceptance is not None:
        deliver(tx, change.acceptance)


def advance(tx: Transaction, change: ch.Advance) -> None:
    run_id, seen, row = change.run_id, change.seen, change.row
    if row.task != seen.tasks + 1:
        raise _why_not(tx, change)
    fence = (
        run_id,
        seen.tasks,
        seen.events,
        seen.digest,
        change.claim,
        change.status,
        row.task,
        change.events,
        row.digest,
    )
    if change.status not in OPEN:
        _close(tx, change, fence)
        return
    if change.take is not None and not tx.is_alive(change.worker):
        raise stop("claimed")
    parameters = (*fence, change.consume_to, change.keep_claim, tx.now, change.take, change.worker, CLAIMED)
    found = tx.execute(_ADVANCE, parameters).fetchall() or tx.execute(_ADVANCE_AND_MARK, parameters).fetchall()
    if not found:
        raise _why_not(tx, change)
    ready_at = found[0][0]
    if ready_at is not None and ready_at != CLAIMED:
        tx.touched.add("runs")
    tx.execute(_INSERT_HISTORY, (run_id, *astuple(row)))
    if change.consume_to is not None:
        tx.execute(_CONSUME, (run_id, change.consume_to))


def _close(tx: Transaction, change: ch.Advance, fence: tuple[Any, ...]) -> None:
    """Record the end and leave nothing in any queue."""
    run_id, row = change.run_id, change.row
    found = tx.execute(_CLOSE, (*fence, change.inbox_seen, change.outcome, tx.now)).fetchall()
    if not found:
        raise _why_not(tx, change)
    tx.execute(_INSERT_HISTORY, (run_id, *astuple(row)))
    chain_id, messages = found[0]
    tx.execute(_DROP_ACTIVITIES, (run_id,))
    tx.execute(_DROP_TIMERS, (run_id,))
    if messages:
        tx.execute(_SQL["drop_inbox"], (run_id,))
    if not change.continues and (messages or chain_id != run_id):
        tx.execute(_SQL["drop_keys"], (chain_id,))
    tx.touched.add("closed")


def _why_not(tx: Transaction, change: ch.Advance | ch.BlockRun) -> Stop:
    """Why the fence did not let a change through; only called when it did not."""
    found = tx.one(_SQL["fence"], (change.run_id,))
    if found is None:
        return stop("not_found")
    if isinstance(change, ch.Advance):
        row = change.row
        if tx.one(_SQL["has_history"], (change.run_id, row.task, row.digest)) is not None:
            return Stop(REPEATED)
    status, tasks, events, digest, claim = found
    if status not in OPEN:
        return stop("closed", status)
    if change.seen != Head(tasks, events, digest):
        return stop("moved")
    if isinstance(change, ch.Advance) and change.row.task != tasks + 1:
        return stop("moved")
    return stop("claimed" if change.claim not in (claim, ch.ANY_CLAIM) else "unread")


def deliver(tx: Transaction, change: ch.Deliver) -> tuple[str, int, bool]:
    """Put a message into an inbox; the run that it was for, its number there or 0, and whether the run was claimed."""
    if change.run_id is not None:
        found = tx.one(_TARGET, (change.run_id,))
    else:
        found = tx.one(_TARGET_OF_WORKFLOW, (change.workflow_id or "",))
    if found is None or change.chain_id not in (None, found[1]):
        return _not_delivered(tx, change, ch.Conflict("not_found"), change.run_id or "")
    run_id, chain_id, status, last, read, ready_at, claim = found
    key = change.message.key
    if key is not None and tx.one(_SQL["has_key"], (chain_id, key)) is not None:
        _reply(tx, change, change.delivered)
        return run_id, 0, False
    if status not in OPEN:
        return _not_delivered(tx, change, ch.Conflict("closed", status), run_id)
    if change.limit is not None and last - read >= change.limit:
        return _not_delivered(tx, change, ch.Conflict("full"), run_id)
    claimed = False
    if claim is not None:
        tx.execute(_COUNT_MESSAGE, (run_id, last + 1))
    else:
        asleep = ready_at is None and status != "blocked"
        claimed = asleep and change.claim is not None and tx.is_alive(change.worker)
        if claimed:
            tx.execute(_WAKE, (run_id, last + 1, CLAIMED, change.claim, change.worker))
        else:
            ready_at = tx.now if ready_at is None else min(ready_at, tx.now)
            tx.execute(_WAKE, (run_id, last + 1, ready_at, None, None))
            tx.touched.add("runs")
    _put_message(tx, run_id, chain_id, last + 1, change.message)
    _reply(tx, change, change.delivered)
    return run_id, last + 1, claimed


def _not_delivered(tx: Transaction, change: ch.Deliver, problem: ch.Conflict, run_id: str) -> tuple[str, int, bool]:
    if change.undelivered is not None:
        _reply(tx, change, change.undelivered)
    elif not change.drop:
        raise Stop(problem)
    return run_id, 0, False


def _reply(tx: Transaction, change: ch.Deliver, message: ch.NewMessage | None) -> None:
    """Tell the sender; one that has closed meanwhile need not know."""
    if message is not None and change.reply_to is not None:
        deliver(tx, ch.Deliver(message, run_id=change.reply_to, drop=True))


def _put_message(tx: Transaction, run_id: str, chain_id: str, number: int, message: ch.NewMessage) -> None:
    tx.execute(_INSERT_MESSAGE, (run_id, number, message.data))
    if message.key is not None:
        tx.execute(_SQL["insert_key"], (chain_id, message.key))


def block_run(tx: Transaction, change: ch.BlockRun) -> None:
    seen = change.seen
    parameters = (change.run_id, seen.tasks, seen.events, seen.digest, change.claim, change.reason, change.retry_at)
    if tx.execute(_SQL["block"], parameters).rowcount == 0:
        raise _why_not(tx, change)
    tx.touched.add("runs")


def release_run(tx: Transaction, change: ch.ReleaseRun) -> None:
    if tx.execute(_SQL["release"], (change.run_id, change.claim, change.ready, tx.now)).rowcount == 0:
        found = tx.one(_SQL["fence"], (change.run_id,))
        if found is None:
            raise stop("not_found")
        raise stop("claimed") if found[0] in OPEN else stop("closed", found[0])
    tx.touched.add("runs")


def request_terminate(tx: Transaction, change: ch.RequestTerminate) -> None:
    if tx.execute(_SQL["request_terminate"], (change.run_id, change.reason, tx.now)).rowcount:
        tx.touched.add("runs")


def forget_run(tx: Transaction, change: ch.ForgetRun) -> None:
    if tx.execute(_SQL["forget_run"], (change.run_id,)).rowcount == 0:
        raise stop("not_found" if tx.one(_SQL["run_exists"], (change.run_id,)) is None else "claimed")
    tx.execute(_SQL["forget_history"], (change.run_id,))
