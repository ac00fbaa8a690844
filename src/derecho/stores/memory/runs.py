"""What the memory store does to runs and their inboxes, one function for each change."""

from typing import Any

from msgspec.structs import replace

from derecho.journal import changes as ch
from derecho.journal.model import CLAIMED, OPEN, Head, RunRow
from derecho.stores.memory.tables import Tables
from derecho.stores.transitions import REPEATED, Stop, stop


def create_run(tables: Tables, change: ch.CreateRun) -> None:
    row = change.row
    if row.run_id in tables.runs:
        raise Stop(REPEATED)
    newest = tables.newest_run(row.workflow_id)
    latest = None if newest is None else newest.run_id
    problem = None
    if newest is not None and newest.is_open:
        problem = stop("already_running", newest.run_id)
    elif change.expect_latest is not False and change.expect_latest != latest:
        problem = stop("superseded", latest or "")
    elif change.first is not None and row.worker not in tables.workers:
        problem = stop("claimed")
    if problem is not None:
        if change.refusal is None:
            raise problem
        deliver(tables, change.refusal)
        return
    tables.put_run(_as_stored(tables, change))
    tables.put(tables.open_runs, row.workflow_id, row.run_id)
    tables.put(tables.newest, row.workflow_id, row.run_id)
    tables.put(tables.listing, (row.started_at, row.run_id), None)
    if latest is not None:
        tables.put(tables.older, row.run_id, latest)
    if row.parent_run_id is not None:
        tables.put(tables.inner(tables.children, row.parent_run_id), row.run_id, None)
    if change.first is not None:
        tables.put(tables.inner(tables.history, row.run_id), change.first.task, change.first)
    for number, message in enumerate(change.messages, start=1):
        _put_message(tables, row, number, message)
    if change.acceptance is not None:
        deliver(tables, change.acceptance)


def _as_stored(tables: Tables, change: ch.CreateRun) -> RunRow:
    """A claim counts only when its worker lives, because nobody would notice its death; messages want a worker."""
    row = change.row
    claimed = row.claim is not None and row.worker in tables.workers
    ready_at = tables.now if row.ready_at is None or row.ready_at == CLAIMED else row.ready_at
    keep = claimed and change.keep_claim
    return replace(
        row,
        inbox_last=len(change.messages),
        inbox_read=0,
        ready_at=CLAIMED if keep else None if claimed else ready_at,
        claim=row.claim if keep else None,
        worker=row.worker if keep else None,
    )


def advance(tables: Tables, change: ch.Advance) -> None:
    run = tables.runs.get(change.run_id)
    row = change.row
    if run is None:
        raise stop("not_found")
    if row.task <= run.tasks and tables.history[run.run_id][row.task].digest == row.digest:
        raise Stop(REPEATED)
    _check(run, change.seen, change.claim)
    if row.task != run.tasks + 1:
        raise stop("moved")
    closing = change.status not in OPEN
    if closing and change.inbox_seen is not None and change.inbox_seen != run.inbox_last:
        raise stop("unread")
    take = change.take if run.claim is None else None
    if take is not None and change.worker not in tables.workers:
        raise stop("claimed")
    tables.put(tables.inner(tables.history, run.run_id), row.task, row)
    if closing:
        _close(tables, run, change)
        return
    read = run.inbox_read if change.consume_to is None else _consume(tables, run, change.consume_to)
    claim, worker = (take, change.worker) if take is not None else (run.claim, run.worker)
    keep = (change.keep_claim or take is not None) and claim is not None
    tables.put_run(
        replace(
            run,
            status=change.status,
            tasks=row.task,
            events=change.events,
            digest=row.digest,
            inbox_read=read,
            ready_at=CLAIMED if keep else tables.now if run.inbox_last > read else None,
            claim=claim if keep else None,
            worker=worker if keep else None,
            crashes=0,
            blocked_reason=None,
            blocked_count=0,
        )
    )


def _check(run: RunRow, seen: Head, claim: str | None) -> None:
    """The fence: open, where the change says, and in the hands it says."""
    if run.status not in OPEN:
        raise stop("closed", run.status)
    if run.tasks != seen.tasks or run.events != seen.events or run.digest != seen.digest:
        raise stop("moved")
    if claim != run.claim and claim != ch.ANY_CLAIM:
        raise stop("claimed")


def _consume(tables: Tables, run: RunRow, to: int) -> int:
    """Remove messages up to `to`; the number of the last one that has been read."""
    to = max(run.inbox_read, min(to, run.inbox_last))
    messages = tables.inbox.get(run.run_id, {})
    for number in range(run.inbox_read + 1, to + 1):
        tables.drop(messages, number)
    return to


def _close(tables: Tables, run: RunRow, change: ch.Advance) -> None:
    """Record the end and leave nothing in any queue."""
    for activity in tables.activities.get(run.run_id, ()) if tables.lost else ():
        tables.drop(tables.lost, (run.run_id, activity))
    of_run: tuple[dict[str, Any], ...] = (tables.activities, tables.timers, tables.inbox, tables.terminate)
    for table in of_run:
        tables.drop(table, run.run_id)
    tables.drop(tables.open_runs, run.workflow_id)
    if not change.continues:
        tables.drop(tables.keys, run.chain_id)
    if run.parent_run_id is not None:
        siblings = tables.children[run.parent_run_id]
        tables.drop(siblings, run.run_id)
        if not siblings:
            tables.drop(tables.children, run.parent_run_id)
    tables.put_run(
        replace(
            run,
            status=change.status,
            closed_at=tables.now,
            tasks=change.row.task,
            events=change.events,
            digest=change.row.digest,
            inbox_read=run.inbox_last,
            ready_at=None,
            claim=None,
            worker=None,
            crashes=0,
            blocked_reason=None,
            blocked_count=0,
            outcome=change.outcome,
            terminate=None,
        )
    )
    tables.touched.add("closed")


def deliver(tables: Tables, change: ch.Deliver) -> tuple[str, int, bool]:
    """Put a message into an inbox; the run that it was for, its number there or 0, and whether the run was claimed."""
    run = tables.runs.get(change.run_id) if change.run_id is not None else tables.newest_run(change.workflow_id or "")
    if run is None or change.chain_id not in (None, run.chain_id):
        return _not_delivered(tables, change, ch.Conflict("not_found"), change.run_id or "")
    if change.message.key is not None and change.message.key in tables.keys.get(run.chain_id, ()):
        _reply(tables, change, change.delivered)
        return run.run_id, 0, False
    if not run.is_open:
        return _not_delivered(tables, change, ch.Conflict("closed", run.status), run.run_id)
    if change.limit is not None and run.inbox_last - run.inbox_read >= change.limit:
        return _not_delivered(tables, change, ch.Conflict("full"), run.run_id)
    number = run.inbox_last + 1
    asleep = run.claim is None and run.ready_at is None and run.status != "blocked"
    claimed = asleep and change.claim is not None and change.worker in tables.workers
    if claimed:
        run = replace(run, inbox_last=number, ready_at=CLAIMED, claim=change.claim, worker=change.worker)
    elif run.claim is None:
        ready_at = tables.now if run.ready_at is None else min(run.ready_at, tables.now)
        run = replace(run, inbox_last=number, ready_at=ready_at)
    else:
        run = replace(run, inbox_last=number)
    tables.put_run(run)
    _put_message(tables, run, number, change.message)
    _reply(tables, change, change.delivered)
    return run.run_id, number, claimed


def _not_delivered(tables: Tables, change: ch.Deliver, problem: ch.Conflict, run_id: str) -> tuple[str, int, bool]:
    if change.undelivered is not None:
        _reply(tables, change, change.undelivered)
    elif not change.drop:
        raise Stop(problem)
    return run_id, 0, False


def _reply(tables: Tables, change: ch.Deliver, message: ch.NewMessage | None) -> None:
    """Tell the sender; one that has closed meanwhile need not know."""
    if message is not None and change.reply_to is not None:
        deliver(tables, ch.Deliver(message, run_id=change.reply_to, drop=True))


def _put_message(tables: Tables, run: RunRow, number: int, message: ch.NewMessage) -> None:
    tables.put(tables.inner(tables.inbox, run.run_id), number, message.data)
    if message.key is not None:
        tables.put(tables.inner(tables.keys, run.chain_id), message.key, None)


def block_run(tables: Tables, change: ch.BlockRun) -> None:
    run = tables.runs.get(change.run_id)
    if run is None:
        raise stop("not_found")
    _check(run, change.seen, change.claim)
    tables.put_run(
        replace(
            let_go(run, change.retry_at),
            status="blocked",
            crashes=0,
            blocked_reason=change.reason,
            blocked_count=run.blocked_count + 1,
        )
    )


def release_run(tables: Tables, change: ch.ReleaseRun) -> None:
    run = tables.runs.get(change.run_id)
    if run is None:
        raise stop("not_found")
    if not run.is_open:
        raise stop("closed", run.status)
    if run.claim != change.claim:
        raise stop("claimed")
    wanted = change.ready or run.inbox_last > run.inbox_read
    tables.put_run(let_go(run, tables.now if wanted else None))


def let_go(run: RunRow, ready_at: int | None) -> RunRow:
    return replace(run, ready_at=ready_at, claim=None, worker=None)


def request_terminate(tables: Tables, change: ch.RequestTerminate) -> None:
    """Whoever holds the run loses it, so that code that never returns cannot keep it."""
    run = asked = tables.runs.get(change.run_id)
    if asked is not None and asked.status == "continued_as_new":
        run = tables.newest_run(asked.workflow_id)
    if run is None or asked is None or not run.is_open or run.chain_id != asked.chain_id:
        return
    tables.put(tables.terminate, run.run_id, None)
    tables.put_run(replace(let_go(run, tables.now), terminate=change.reason))


def forget_run(tables: Tables, change: ch.ForgetRun) -> None:
    run = tables.runs.get(change.run_id)
    if run is None:
        raise stop("not_found")
    if run.is_open:
        raise stop("claimed")
    tables.drop(tables.runs, run.run_id)
    tables.drop(tables.history, run.run_id)
    tables.drop(tables.listing, (run.started_at, run.run_id))
    if tables.newest.get(run.workflow_id) != run.run_id:  # or it went in this batch
        return
    older = tables.older.get(run.run_id)
    while older is not None and older not in tables.runs:
        older = tables.older.get(older)
    if older is None:
        tables.drop(tables.newest, run.workflow_id)
    else:
        tables.put(tables.newest, run.workflow_id, older)
