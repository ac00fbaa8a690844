"""The timer worker and the timeout worker: look at what is due, say what it means, commit.

Both look without taking. A timer fires by its row's removal and its message in one transition, so it fires once however
many engines look; a timeout asks the activity's retry policy, because it is the failure of an attempt.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from derecho.clock import SECOND
from derecho.engine.outcomes import TIMEOUT_NAMES, Verdict, decode_command, judge
from derecho.errors import PayloadError, StoreError
from derecho.journal import changes as ch
from derecho.journal import events as ev
from derecho.journal.deadlines import ran_out
from derecho.journal.failures import Failure, short_type, timeout_failure
from derecho.journal.model import OverdueActivity, TimerRow
from derecho.journal.wire import encode_struct

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

log = logging.getLogger("derecho.engine")

_LOOK_AT = 500
_failure = msgspec.json.Decoder(Failure)


class TimerWorker:
    """Fires timers that are due."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._firing: set[tuple[str, int]] = set()

    async def work(self) -> None:
        engine = self._engine
        while True:
            mark = engine.store.seen("timers")
            due = await engine.persist(lambda: engine.store.due_timers(_LOOK_AT), "look at timers")
            fresh = [row for row in due.timers if (row.run_id, row.timer) not in self._firing]
            for row in fresh:
                self._fire(row)
            if len(due.timers) >= _LOOK_AT:
                await asyncio.sleep(0.001 if fresh else 0.01)
                continue
            await engine.store.wait("timers", mark, engine.until(due.next_at))

    def _fire(self, row: TimerRow) -> None:
        engine, key = self._engine, (row.run_id, row.timer)
        fact = ev.TimerFired(row.timer, row.fire_at)
        claim = engine.workflows.warm_claim(row.run_id)
        deliver = ch.Deliver(
            ch.NewMessage(encode_struct(fact)), run_id=row.run_id, claim=claim, worker=engine.incarnation, drop=True
        )
        self._firing.add(key)

        def done(result: ch.Result | StoreError) -> None:
            self._firing.discard(key)
            if isinstance(result, ch.Receipt) and not result.repeated:
                engine.message_delivered(result, claim, fact)

        engine.submit((ch.DropTimer(row.run_id, row.timer, must_exist=True), deliver), done)


class TimeoutWorker:
    """Ends attempts that ran out of time or lost their worker, and buries workers whose lease has run out."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._judging: set[tuple[str, int, int]] = set()

    async def work(self) -> None:
        engine = self._engine
        while True:
            mark = engine.store.seen("timers")
            overdue = await engine.persist(lambda: engine.store.overdue(_LOOK_AT), "look at timeouts")
            if any(row.worker == engine.incarnation for row in overdue.dead):  # before it judges the others
                engine.lease.renew_soon()
                engine.submit((ch.RenewWorker(engine.incarnation, engine.lease.until()),), lambda _: None)
            for row in overdue.dead:
                if row.worker != engine.incarnation and engine.lease.may_bury():
                    log.warning(
                        "engine %s (%s) has not renewed its lease: its work is taken over", row.name, row.worker
                    )
                    engine.submit((ch.BuryWorker(row.worker),), lambda _: None)
            fresh = [item for item in overdue.activities if self._key(item) not in self._judging]
            for item in fresh:
                self.judge(item)
            if len(overdue.activities) >= _LOOK_AT or overdue.dead:
                await asyncio.sleep(0.01 if overdue.activities else 0.1)
                continue
            await engine.store.wait("timers", mark, engine.until(overdue.next_at))

    def judge(self, item: OverdueActivity) -> None:
        engine, row, key = self._engine, item.row, self._key(item)
        now = engine.store.now()
        try:
            command = decode_command(row)
        except PayloadError:
            command = ev.ActivityScheduled(row.name)
        last = _failure.decode(row.last_failure) if row.last_failure else None
        # The death of a worker costs one attempt, whatever the policy says of classes, and no pause.
        verdict = Verdict(self._failure(item, command, last, now), TIMEOUT_NAMES, delay=0 if item.lost else None)
        fact, change = judge(row, command, verdict, now=now)
        transition: tuple[ch.Change, ...] = (*engine.activities.last_heartbeat(row), change)
        if fact is not None:
            transition = (change, ch.Deliver(ch.NewMessage(encode_struct(fact)), run_id=row.run_id, drop=True))
        self._judging.add(key)

        def done(result: ch.Result | StoreError) -> None:
            self._judging.discard(key)
            engine.activities.cancel(row.run_id, row.activity, "timeout", row.claim)

        engine.submit(transition, done)

    def _failure(self, item: OverdueActivity, command: ev.ActivityScheduled, last: Failure | None, now: int) -> Failure:
        row = item.row
        if item.lost:
            message = f"the worker of activity {row.name!r} died in attempt {row.attempt}"
            return timeout_failure("heartbeat", message, last)
        kind = ran_out(command, scheduled_at=row.scheduled_at, started_at=row.started_at, attempt=row.attempt, now=now)
        limit = (getattr(command, kind) or 0) / SECOND
        tail = f"; the last attempt ended in {short_type(last.type)}: {last.message}" if last is not None else ""
        message = f"activity {row.name!r} ran out of {kind} ({limit:g} s) in attempt {row.attempt}{tail}"
        return timeout_failure(kind, message, last)

    def _key(self, item: OverdueActivity) -> tuple[str, int, int]:
        return item.row.run_id, item.row.activity, item.row.attempt
