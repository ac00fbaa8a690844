"""One of each change, ready to be committed, with what it needs before and the ways in which it is refused.

The tests in `batches` take them alone, twice, in pairs and beside refused ones.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from derecho.clock import SECOND
from derecho.journal.changes import (
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
from derecho.journal.model import Head, TimerRow, WorkerRow
from derecho.testing.conformance.kit import COMPLETED, MINUTE, World, activity_row, advance, message, run_row

START = 1_767_225_600 * SECOND
"""When the virtual clock begins, for instants inside of changes."""

Refusal = Callable[[], Change]


class Scenario(NamedTuple):
    """`change` applies in the world that `prepare` makes; `refused` are variants that conflict there."""

    name: str
    change: Callable[[], Change]
    refused: dict[str, Refusal]


async def prepare(world: World) -> None:
    """A world in which each scenario's change applies.

    `run-1` is open, held by worker-1, has an unread message, a held activity (5), an unclaimed one (6) and a timer (7);
    `run-2` is asleep; `run-3` is closed. `worker-2` is dead and holds `run-4`.
    """
    await world.all_at_once(_register(world, "worker-2", SECOND), _create(world, 4))
    await world.store.claim_runs("worker-2", ["of-the-dead"], ["order"])
    world.clock.advance(SECOND)
    await world.all_at_once(_register(world, "worker-1", 60 * MINUTE), _create(world, 1))
    await world.store.claim_runs("worker-1", ["mine"], ["order"])
    held: dict[str, Any] = {"claim": "attempt", "worker": "worker-1", "started_at": world.now}
    await world.all_at_once(
        _create(world, 2),
        advance("run-2", consume_to=1),
        _create(world, 3),
        advance("run-3", status="completed", outcome=COMPLETED),
        ScheduleActivity(activity_row(5, timeout_at=world.now + MINUTE, **held)),
        ScheduleActivity(activity_row(6, timeout_at=world.now)),
        ScheduleTimer(TimerRow("run-1", 7, world.now)),
    )


def _register(world: World, worker: str, lease: int) -> Change:
    return RegisterWorker(WorkerRow(worker, "test", world.now + lease, ["workflow:order"]))


def _create(world: World, number: int) -> Change:
    return CreateRun(run_row(number, started_at=world.now), (message("start"),))


def _gone(make: Callable[[str], Change]) -> dict[str, Refusal]:
    return {"no such run": lambda: make("nothing")}


def _advance(run_id: str = "run-1", claim: str | None = "mine", seen: Head | None = None, **fields: object) -> Change:
    return advance(run_id, seen or Head(), claim=claim, **fields)


def _deliver(run_id: str) -> Change:
    return Deliver(message("signal", "key"), run_id=run_id, limit=5)


def _block(run_id: str = "run-1", claim: str | None = "mine", seen: Head | None = None) -> Change:
    return BlockRun(run_id, seen or Head(), claim, "why", START + MINUTE)


def _retry(activity: int = 5, claim: str = "attempt") -> Change:
    return RetryActivity("run-1", activity, claim, 2, START + MINUTE, START + 2 * MINUTE, '"failure"')


def _worker(worker: str) -> Change:
    return RegisterWorker(WorkerRow(worker, "name", START + MINUTE, ["workflow:order"]))


WRONG_HEAD = Head(1, 2, "elsewhere")

SCENARIOS = [
    Scenario(
        "CreateRun",
        lambda: CreateRun(run_row(9), (message("start", "start-key"),)),
        {
            "id is taken": lambda: CreateRun(run_row(9, workflow_id="order-1"), ()),
            "another is newest": lambda: CreateRun(run_row(9, workflow_id="order-3"), (), expect_latest=None),
        },
    ),
    Scenario(
        "CreateRun of a child",
        lambda: CreateRun(
            run_row(9, parent_run_id="run-2", parent_child=4),
            (message("start"),),
            refusal=Deliver(message("refused"), run_id="run-2", drop=True),
            acceptance=Deliver(message("accepted"), run_id="run-2", drop=True),
        ),
        {},
    ),
    Scenario(
        "Advance",
        lambda: _advance(consume_to=1),
        {
            "no such run": lambda: _advance("nothing"),
            "closed": lambda: _advance("run-3", data="[1]"),
            "moved": lambda: _advance(seen=WRONG_HEAD),
            "another's": lambda: _advance(claim="another's"),
            "nobody's": lambda: _advance(claim=None),
        },
    ),
    Scenario(
        "Advance that keeps the claim",
        lambda: _advance(keep_claim=True, status="cancelling"),
        {"another's": lambda: _advance(keep_claim=True, claim="another's")},
    ),
    Scenario(
        "Advance that closes",
        lambda: _advance(status="completed", inbox_seen=1, outcome='"done"'),
        {
            "unread": lambda: _advance(status="completed", inbox_seen=0),
            "moved": lambda: _advance(status="completed", inbox_seen=1, seen=WRONG_HEAD),
        },
    ),
    Scenario(
        "Deliver",
        lambda: _deliver("run-2"),
        {
            **_gone(_deliver),
            "closed": lambda: Deliver(message(), workflow_id="order-3"),
            "full": lambda: Deliver(message(), run_id="run-1", limit=1),
        },
    ),
    Scenario(
        "Deliver with a reply",
        lambda: Deliver(message("signal"), workflow_id="order-2", reply_to="run-1", delivered=message("delivered")),
        {},
    ),
    Scenario(
        "Deliver that claims",
        lambda: Deliver(message("work"), run_id="run-2", claim="taken", worker="worker-1"),
        {},
    ),
    Scenario(
        "BlockRun",
        _block,
        {
            "no such run": lambda: _block("nothing"),
            "closed": lambda: _block("run-3"),
            "moved": lambda: _block(seen=WRONG_HEAD),
            "another's": lambda: _block(claim="another's"),
        },
    ),
    Scenario(
        "ReleaseRun",
        lambda: ReleaseRun("run-1", "mine"),
        {
            "no such run": lambda: ReleaseRun("nothing", "mine"),
            "closed": lambda: ReleaseRun("run-3", "mine"),
            "another's": lambda: ReleaseRun("run-1", "another's"),
            "nobody's": lambda: ReleaseRun("run-2", "mine"),
        },
    ),
    Scenario("RequestTerminate", lambda: RequestTerminate("run-1", "why"), {}),
    Scenario("ScheduleActivity", lambda: ScheduleActivity(activity_row(8)), {}),
    Scenario(
        "RetryActivity",
        _retry,
        {
            "gone": lambda: _retry(9),
            "another's": lambda: _retry(5, "another's"),
            "nobody's": lambda: _retry(6, "attempt"),
        },
    ),
    Scenario(
        "FinishActivity",
        lambda: FinishActivity("run-1", 5, "attempt"),
        {
            "gone": lambda: FinishActivity("run-1", 9, "attempt"),
            "another's": lambda: FinishActivity("run-1", 5, "another's"),
            "claimed": lambda: FinishActivity("run-1", 5, None),
            "nobody's": lambda: FinishActivity("run-1", 6, "attempt"),
        },
    ),
    Scenario("CancelActivity that runs", lambda: CancelActivity("run-1", 5, message("cancelled")), {}),
    Scenario("CancelActivity that waits", lambda: CancelActivity("run-1", 6, message("cancelled")), {}),
    Scenario(
        "Heartbeat",
        lambda: Heartbeat("run-1", 5, "attempt", '"half"', START + 2 * MINUTE),
        {
            "gone": lambda: Heartbeat("run-1", 9, "attempt", None, None),
            "another's": lambda: Heartbeat("run-1", 5, "another's", None, None),
        },
    ),
    Scenario("ScheduleTimer", lambda: ScheduleTimer(TimerRow("run-1", 8, START + MINUTE)), {}),
    Scenario(
        "DropTimer",
        lambda: DropTimer("run-1", 7, must_exist=True),
        {"gone": lambda: DropTimer("run-1", 9, must_exist=True)},
    ),
    Scenario("RegisterWorker", lambda: _worker("worker-3"), {}),
    Scenario(
        "RenewWorker",
        lambda: RenewWorker("worker-1", START + 90 * MINUTE),
        {"not registered": lambda: RenewWorker("nobody", START + MINUTE)},
    ),
    Scenario("RetireWorker", lambda: RetireWorker("worker-1"), {}),
    Scenario(
        "BuryWorker",
        lambda: BuryWorker("worker-2"),
        {
            "alive": lambda: BuryWorker("worker-1"),
            "not registered": lambda: BuryWorker("nobody"),
        },
    ),
    Scenario(
        "ForgetRun",
        lambda: ForgetRun("run-3"),
        {"open": lambda: ForgetRun("run-1"), **_gone(ForgetRun)},
    ),
]
REFUSALS = [(f"{scenario.name}, {why}", make) for scenario in SCENARIOS for why, make in scenario.refused.items()]
CHANGES_COVERED = {type(scenario.change()) for scenario in SCENARIOS}
