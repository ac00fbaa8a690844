"""Random transitions that mostly fit: they name runs that are open, heads and claims as they are, and rarely others."""

from random import Random
from typing import Any

from derecho.journal.changes import (
    ANY_CLAIM,
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
    Transition,
)
from derecho.journal.model import ActivityRow, Head, RunRow, TimerRow, WorkerRow
from derecho.testing.conformance.kit import activity_row, advance, message, run_row

RUNS = [f"run-{number}" for number in range(1, 9)]
WORKFLOWS = ["order-1", "order-2", "order-3", "order-4"]
WORKERS = ["worker-1", "worker-2"]
TYPES, NAMES, QUEUES = ["order", "ship"], ["charge", "mail"], ["default", "gpu"]
KEYS = [None, None, "key-1", "key-2"]
STATUSES = ["running"] * 6 + ["cancelling", "completed", "failed", "continued_as_new"]
KINDS = [
    *("create", "deliver", "deliver", "advance", "advance", "advance", "finish", "retry") * 2,
    *("block", "release", "terminate", "forget", "cancel", "heartbeat", "drop", "register", "retire", "bury", "renew"),
]


class RandomChanges:
    """`runs` and `activities` are what there is; whoever makes transitions keeps them up to date."""

    def __init__(self) -> None:
        self.runs: dict[str, RunRow] = {}
        self.activities: dict[tuple[str, int], ActivityRow] = {}
        self._claims = 0
        self._seen: set[str] = set()

    def tokens(self, count: int) -> list[str]:
        self._claims += count
        return [f"claim-{number}" for number in range(self._claims - count, self._claims)]

    def first(self, now: int) -> list[Transition]:
        """Two workers and three runs to begin with."""
        workers: list[Change] = [RegisterWorker(WorkerRow(worker, "", now + 60, [])) for worker in WORKERS]
        runs: list[Change] = [CreateRun(run_row(number, started_at=now), (message(),)) for number in (1, 2, 3)]
        return [(change,) for change in workers + runs]

    def transition(self, dice: Random, now: int) -> Transition:
        self._seen |= self.runs.keys()
        return tuple(change for _ in range(dice.choice([1, 1, 1, 2, 3])) for change in self._changes(dice, now))

    def _changes(self, dice: Random, now: int) -> list[Change]:
        """One change, or a workflow task with what goes with it."""
        kind, at = dice.choice(KINDS), now + dice.choice([0, 1, 5, 20])
        match kind:
            case "create":
                return [self._create(dice, now, at)]
            case "deliver":
                return [self._deliver(dice)]
            case "advance":
                return self._advance(dice, now, at)
            case "block" | "release" | "terminate" | "forget" | "drop":
                return [self._of_run(dice, kind, at)]
            case "finish" | "retry" | "cancel" | "heartbeat":
                return [self._of_activity(dice, kind, at)]
            case _:
                return [self._of_worker(dice, kind, at + 30)]

    def _open_run(self, dice: Random) -> str:
        known = sorted(run.run_id for run in self.runs.values() if run.is_open)
        return dice.choice(known) if known and not rarely(dice) else dice.choice(RUNS)

    def _fence(self, dice: Random, run_id: str) -> tuple[Head, str | None]:
        run = self.runs.get(run_id)
        if run is None or rarely(dice):
            return Head(), dice.choice([None, "claim-0", ANY_CLAIM])
        return run.head, ANY_CLAIM if rarely(dice) else run.claim

    def _advance(self, dice: Random, now: int, at: int) -> list[Change]:
        run_id, status = self._open_run(dice), dice.choice(STATUSES)
        seen, claim = self._fence(dice, run_id)
        last = self.runs[run_id].inbox_last if run_id in self.runs else 1
        task = advance(
            run_id,
            seen,
            data=f"[{dice.randint(0, 1)}]",
            status=status,
            claim=claim,
            keep_claim=dice.random() < 0.5,
            consume_to=dice.choice([None, last, last, dice.randint(0, last)]),
            inbox_seen=dice.choice([last, last, None, 0]),
            outcome=None if status == "running" else '"outcome"',
            continues=status == "continued_as_new",
        )
        open_still = status in ("running", "cancelling")
        return [task, *(self._scheduled(dice, run_id, now, at) for _ in range(dice.randint(0, 2) if open_still else 0))]

    def _scheduled(self, dice: Random, run_id: str, now: int, at: int) -> Change:
        event_id = dice.randint(1, 6)
        if dice.random() < 0.3:
            return ScheduleTimer(TimerRow(run_id, event_id, at))
        eager = {"claim": self.tokens(1)[0], "worker": dice.choice(WORKERS), "started_at": now}
        row = activity_row(
            event_id,
            run_id,
            name=dice.choice(NAMES),
            queue=dice.choice(QUEUES),
            due_at=at,
            timeout_at=dice.choice([None, at, at + 10]),
            close_at=dice.choice([None, at + 20]),
            **(eager if dice.random() < 0.5 else {}),
        )
        return ScheduleActivity(row)

    def _create(self, dice: Random, now: int, at: int) -> Change:
        mine, parent = dice.random() < 0.3, dice.choice([None, self._open_run(dice)])
        forgotten = self._seen - self.runs.keys()  # an id is drawn once: it never comes back for another run
        row = run_row(
            int(dice.choice([run for run in RUNS if run not in forgotten] or ["run-9"])[4:]),
            workflow_id=dice.choice(WORKFLOWS),
            workflow_type=dice.choice(TYPES),
            chain_id=f"chain-{dice.randint(1, 3)}",
            started_at=now,
            ready_at=dice.choice([None, at]),
            claim=self.tokens(1)[0] if mine else None,
            worker=dice.choice(WORKERS) if mine else None,
            parent_run_id=parent,
        )
        told = None if parent is None else Deliver(message("child"), run_id=parent, drop=True)
        expected: Any = dice.choice([None, *RUNS]) if rarely(dice) else False
        messages = tuple(message("start", dice.choice(KEYS)) for _ in range(dice.randint(0, 2)))
        return CreateRun(row, messages, expect_latest=expected, refusal=told, acceptance=told)

    def _deliver(self, dice: Random) -> Change:
        run_id, eager = self._open_run(dice), dice.random() < 0.5
        by_id = dice.random() < 0.6
        return Deliver(
            message(f"m{dice.randint(0, 1)}", dice.choice(KEYS)),
            run_id=run_id if by_id else None,
            workflow_id=None if by_id else dice.choice(WORKFLOWS),
            limit=dice.choice([None, None, 2, 4]),
            claim=self.tokens(1)[0] if eager else None,
            worker=dice.choice(WORKERS) if eager else None,
            drop=dice.random() < 0.3,
            reply_to=dice.choice([None, self._open_run(dice)]),
            delivered=dice.choice([None, message("delivered", "reply")]),
            undelivered=dice.choice([None, None, message("undelivered")]),
            chain_id=dice.choice([None, None, None, "chain-1"]),
        )

    def _of_run(self, dice: Random, kind: str, at: int) -> Change:
        run_id = self._open_run(dice)
        seen, claim = self._fence(dice, run_id)
        match kind:
            case "block":
                return BlockRun(run_id, seen, claim, "why", at)
            case "release":
                held = sorted(run.run_id for run in self.runs.values() if run.claim is not None)
                run_id = dice.choice(held or RUNS)
                return ReleaseRun(run_id, self._fence(dice, run_id)[1] or "claim-0", dice.random() < 0.5)
            case "terminate":
                return RequestTerminate(run_id, "because")
            case "drop":
                return DropTimer(run_id, dice.randint(1, 6), dice.random() < 0.5)
            case _:
                closed = sorted(run.run_id for run in self.runs.values() if not run.is_open)
                return ForgetRun(dice.choice(closed or RUNS))

    def _of_activity(self, dice: Random, kind: str, at: int) -> Change:
        run_id, activity, claim = dice.choice(RUNS), dice.randint(1, 6), "claim-0"
        if self.activities and not rarely(dice):
            row = self.activities[dice.choice(sorted(self.activities))]
            run_id, activity, claim = row.run_id, row.activity, row.claim or "claim-0"
        match kind:
            case "finish":
                return FinishActivity(run_id, activity, None if rarely(dice) else claim)
            case "retry":
                return RetryActivity(run_id, activity, claim, 2, at, dice.choice([None, at + 10]), '"failure"')
            case "cancel":
                return CancelActivity(run_id, activity, dice.choice([None, message("cancelled")]))
            case _:
                return Heartbeat(run_id, activity, claim, '"half"', dice.choice([None, at]))

    def _of_worker(self, dice: Random, kind: str, until: int) -> Change:
        worker = dice.choice(WORKERS)
        match kind:
            case "register":
                return RegisterWorker(WorkerRow(worker, "name", until, ["workflow:order"]))
            case "renew":
                return RenewWorker(worker, until)
            case "retire":
                return RetireWorker(worker)
            case _:
                return BuryWorker(worker)


def rarely(dice: Random) -> bool:
    return dice.random() < 0.1
