"""What the SQLite store does to runs and their inboxes, one function for each change."""

from typing import Any

from msgspec.structs import astuple, replace

from derecho.journal.changes import (
    ANY_CLAIM,
    Advance,
    BlockRun,
    Conflict,
    CreateRun,
    Deliver,
    ForgetRun,
    NewMessage,
    ReleaseRun,
    RequestTerminate,
)
from derecho.journal.model import CLAIMED, OPEN, Head
from derecho.stores.sql import load
from derecho.stores.sqlite.transaction import Transaction
from derecho.stores.transitions import REPEATED, Stop, stop

_SQL = load("sqlite/runs")
_ADVANCE, _ADVANCE_AND_MARK, _CLOSE = _SQL["advance"], _SQL["advance_and_mark"], _SQL["close"]
_INSERT_HISTORY, _INSERT_MESSAGE, _CONSUME = _SQL["insert_history"], _SQL["insert_message"], _SQL["consume"]
_TARGET, _TARGET_OF_WORKFLOW = _SQL["target"], _SQL["target_of_workflow"]
_COUNT_MESSAGE, _WAKE = _SQL["count_message"], _SQL["wake"]


def create_run(tx: Transaction, change: CreateRun) -> None:
    row = change.row
    if tx.one(_SQL["run_exists"], (row.run_id,)) is not None:
        raise Stop(REPEATED)
    latest, number, closed_at = tx.one(_SQL["newest"], (row.workflow_id,)) or ("", 0, 0)
    problem = None
    if closed_at is None:
        problem = stop("already_running", latest)
    elif change.expect_latest is not False and (change.expect_latest or "") != latest:
        problem = stop("superseded", latest)
    if problem is not None:
        if change.refusal is None:
            raise problem
        deliver(tx, change.refusal)
        return
    claimed = row.claim is not None and tx.is_alive(row.worker)
    ready_at = tx.now if row.ready_at is None or row.ready_at == CLAIMED else row.ready_at
    stored = replace(
        row,
        inbox_last=len(change.messages),
        inbox_read=0,
        ready_at=CLAIMED if claimed else ready_at,
        claim=row.claim if claimed else None,
        worker=row.worker if claimed else None,
    )
    tx.execute(_SQL["insert_run"], (number + 1, *astuple(stored)))
    for position, message in enumerate(change.messages, start=1):
        _put_message(tx, row.run_id, row.chain_id, position, message)
    if not claimed:
        tx.touched.add("runs")
    if change.acceptance is not None:
        deliver(tx, change.acceptance)


def advance(tx: Transaction, change: Advance) -> None:
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
    tx.execute(_INSERT_HISTORY, (run_id, row.task, row.first_event, row.at, row.data, row.digest))
    if change.consume_to is not None:
        tx.execute(_CONSUME, (run_id, change.consume_to))


def _close(tx: Transaction, change: Advance, fence: tuple[Any, ...]) -> None:
    """Record the end and leave nothing in any queue."""
    run_id, row = change.run_id, change.row
    found = tx.execute(_CLOSE, (*fence, change.inbox_seen, change.outcome, tx.now)).fetchall()
    if not found:
        raise _why_not(tx, change)
    tx.execute(_INSERT_HISTORY, (run_id, row.task, row.first_event, row.at, row.data, row.digest))
    for statement in ("drop_activities", "drop_timers", "drop_inbox"):
        tx.execute(_SQL[statement], (run_id,))
    if not change.continues:
        tx.execute(_SQL["drop_keys"], found[0])
    tx.touched.add("closed")


def _why_not(tx: Transaction, change: Advance | BlockRun) -> Stop:
    """Why the fence did not let a change through; only called when it did not."""
    found = tx.one(_SQL["fence"], (change.run_id,))
    if found is None:
        return stop("not_found")
    if isinstance(change, Advance):
        row = change.row
        if tx.one(_SQL["has_history"], (change.run_id, row.task, row.digest)) is not None:
            return Stop(REPEATED)
    status, tasks, events, digest, claim = found
    if status not in OPEN:
        return stop("closed", status)
    if change.seen != Head(tasks, events, digest):
        return stop("moved")
    if isinstance(change, Advance) and change.row.task != tasks + 1:
        return stop("moved")
    return stop("claimed" if change.claim not in (claim, ANY_CLAIM) else "unread")


def deliver(tx: Transaction, change: Deliver) -> tuple[str, int, bool]:
    """Put a message into an inbox; the run that it was for, its number there or 0, and whether the run was claimed."""
    if change.run_id is not None:
        found = tx.one(_TARGET, (change.run_id,))
    else:
        found = tx.one(_TARGET_OF_WORKFLOW, (change.workflow_id or "",))
    if found is None or change.chain_id not in (None, found[1]):
        return _not_delivered(tx, change, Conflict("not_found"), change.run_id or "")
    run_id, chain_id, status, last, read, ready_at, claim = found
    key = change.message.key
    if key is not None and tx.one(_SQL["has_key"], (chain_id, key)) is not None:
        _reply(tx, change, change.delivered)
        return run_id, 0, False
    if status not in OPEN:
        return _not_delivered(tx, change, Conflict("closed", status), run_id)
    if change.limit is not None and last - read >= change.limit:
        return _not_delivered(tx, change, Conflict("full"), run_id)
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


def _not_delivered(tx: Transaction, change: Deliver, problem: Conflict, run_id: str) -> tuple[str, int, bool]:
    if change.undelivered is not None:
        _reply(tx, change, change.undelivered)
    elif not change.drop:
        raise Stop(problem)
    return run_id, 0, False


def _reply(tx: Transaction, change: Deliver, message: NewMessage | None) -> None:
    """Tell the sender; one that has closed meanwhile need not know."""
    if message is not None and change.reply_to is not None:
        deliver(tx, Deliver(message, run_id=change.reply_to, drop=True))


def _put_message(tx: Transaction, run_id: str, chain_id: str, number: int, message: NewMessage) -> None:
    tx.execute(_INSERT_MESSAGE, (run_id, number, message.data))
    if message.key is not None:
        tx.execute(_SQL["insert_key"], (chain_id, message.key))


def block_run(tx: Transaction, change: BlockRun) -> None:
    seen = change.seen
    parameters = (change.run_id, seen.tasks, seen.events, seen.digest, change.claim, change.reason, change.retry_at)
    if tx.execute(_SQL["block"], parameters).rowcount == 0:
        raise _why_not(tx, change)
    tx.touched.add("runs")


def release_run(tx: Transaction, change: ReleaseRun) -> None:
    if tx.execute(_SQL["release"], (change.run_id, change.claim, change.ready, tx.now)).rowcount == 0:
        found = tx.one(_SQL["fence"], (change.run_id,))
        if found is None:
            raise stop("not_found")
        raise stop("claimed") if found[0] in OPEN else stop("closed", found[0])
    tx.touched.add("runs")


def request_terminate(tx: Transaction, change: RequestTerminate) -> None:
    if tx.execute(_SQL["request_terminate"], (change.run_id, change.reason, tx.now)).rowcount:
        tx.touched.add("runs")


def forget_run(tx: Transaction, change: ForgetRun) -> None:
    if tx.execute(_SQL["forget_run"], (change.run_id,)).rowcount == 0:
        raise stop("not_found" if tx.one(_SQL["run_exists"], (change.run_id,)) is None else "claimed")
    tx.execute(_SQL["forget_history"], (change.run_id,))
