"""From a turn that came back to the transition that commits it.

The decider says what the commands mean; what is added here depends on this engine: activities that can start at once
are committed already claimed, messages to runs that are warm here take a claim along, a successor begins here.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from derecho.engine.activity_worker import Reservation
from derecho.engine.runs import Turn
from derecho.journal import events as ev
from derecho.journal.changes import Change, CreateRun, Deliver, Receipt, ScheduleActivity, Transition
from derecho.journal.model import CLAIMED, RunRow
from derecho.journal.wire import decode_fact
from derecho.runtime.decider import Decision, decide
from derecho.runtime.ending import successor as open_successor
from derecho.runtime.execution import Execution

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

_UNREAD_REFUSALS = 3
"""How often new messages may hold a run back from closing."""


class Plan:
    """A transition, and what to do when it is known to be committed."""

    __slots__ = ("reservation", "successor", "transition")

    def __init__(
        self, transition: Transition, reservation: Reservation, successor: tuple[RunRow, Sequence[ev.Fact]] | None
    ) -> None:
        self.transition = transition
        self.reservation = reservation
        self.successor = successor

    def delivered(self, receipt: Receipt) -> Iterator[tuple[str, int, str | None, ev.Fact]]:
        """Run id, number, claim and fact of each message of this commit that entered an inbox."""
        if not receipt.delivered:
            return
        delivers = [change for change in self.transition if isinstance(change, Deliver)]
        for change, (run_id, number, claimed) in zip(delivers, receipt.delivered, strict=True):
            if number:
                yield run_id, number, change.claim if claimed else None, decode_fact(change.message.data)


def plan_turn(
    engine: "Engine", turn: Turn, execution: Execution, refusals: int, warm_claim: Callable[[str], str | None]
) -> Plan:
    """Decide a turn and say how to commit it. `refusals`: how often new messages have held this run from closing."""
    run = turn.live
    must_see_all = refusals < _UNREAD_REFUSALS or execution.continues  # a successor must never miss a signal
    decision = turn.decision = decide(
        run.identity,
        run.head,
        turn.given,
        turn.commands,
        at=execution.at,
        worker=engine.worker_id,
        claim=run.claim,
        keep_claim=bool(run.steps or execution.steps) or run.has_messages,
        consume_to=turn.consume_to,
        inbox_seen=turn.inbox_seen if must_see_all else None,
        cancelling=execution.cancel is not None,
        children=() if execution.outcome is None else execution.open_children(),
    )
    if decision.advance.keep_claim and run.claim is None:
        taking = replace(decision.advance, take=engine.new_claim(), worker=engine.incarnation)
        decision = turn.decision = replace(decision, advance=taking)
    reservation = engine.activities.reserve(decision.activities)
    changes: list[Change] = [item.change for item in turn.facts if item.change is not None]
    changes.append(decision.advance)
    changes.extend(ScheduleActivity(row) for row in reservation.rows)
    for change in decision.changes:
        claim = warm_claim(change.run_id) if isinstance(change, Deliver) and change.run_id is not None else None
        changes.append(change if claim is None else replace(change, claim=claim, worker=engine.incarnation))
    successor = _successor(engine, turn, execution, decision)
    if successor is None:
        return Plan(tuple(changes), reservation, None)
    create, facts = successor
    changes.append(create)
    return Plan(tuple(changes), reservation, (create.row, facts))


def _successor(
    engine: "Engine", turn: Turn, execution: Execution, decision: Decision
) -> tuple[CreateRun, Sequence[ev.Fact]] | None:
    """The run that goes on after continue-as-new, claimed for this engine."""
    if not isinstance(decision.outcome, ev.WorkflowContinuedAsNew) or execution.started is None:
        return None
    create, facts = open_successor(
        turn.live.identity,
        execution.started,
        decision.outcome,
        execution.unread_signals(),
        execution.unseen_cancel,
        turn.live.close_policy,
        execution.at,
    )
    row = replace(create.row, claim=engine.new_claim(), worker=engine.incarnation, ready_at=CLAIMED)
    return replace(create, row=row), facts
