"""The proofs: each a pure function from the evidence to a verdict that says what was looked at, and what is wrong.

Nothing here asks the engine whether it did well. It compares the orders file, the shop's books and the histories.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

import derecho
from crashtest.evidence import Evidence
from crashtest.oracle import DONE, expected, total_of
from order import Outcome, order_workflow
from shop.ledger import Effect
from shop.rules import SHELF

Money: TypeAlias = tuple[Decimal, str]


@dataclass(frozen=True)
class Proof:
    """`seen` says in a few words what was compared; a proof with problems has failed."""

    title: str
    seen: str
    problems: list[str]

    @property
    def holds(self) -> bool:
        return not self.problems


def prove(evidence: Evidence, least_kills: int) -> list[Proof]:
    return [
        killed_at_work(evidence, least_kills),
        ended_rightly(evidence),
        charged_once(evidence),
        one_effect_a_key(evidence),
        nothing_computed_again(evidence),
        histories_replay(evidence),
        stock_adds_up(evidence),
    ]


def killed_at_work(evidence: Evidence, least: int) -> Proof:
    """The workers died while orders were in flight."""
    problems = []
    if len(evidence.kills) < least:
        problems.append(f"{len(evidence.kills)} workers were killed, not {least}")
    open_orders = [len(evidence.open_at(kill.at)) for kill in evidence.kills]
    for kill, count in zip(evidence.kills, open_orders, strict=True):
        if not count:
            problems.append(f"{kill.worker} (pid {kill.pid}) was killed while no order was open")
        if not any(call.began_at < kill.at for call in evidence.calls if call.began_at >= kill.started_at):
            problems.append(f"{kill.worker} (pid {kill.pid}) was killed before it did anything")
    calls = sum(len(evidence.in_flight_at(kill.at)) for kill in evidence.kills)
    seen = f"{len(evidence.kills)} times, with {', '.join(map(str, open_orders))} orders and {calls} calls in flight"
    return Proof("the workers were killed at work", seen, problems)


def ended_rightly(evidence: Evidence) -> Proof:
    """Each order ended as computed from the file, and the shop did for it what that needs, and no more."""
    problems = []
    effects: dict[str, list[Effect]] = defaultdict(list)
    for effect in evidence.effects:
        effects[effect.order_id].append(effect)
    for entry in evidence.entries:
        order_id, want = entry.order.id, expected(entry.raw)
        outcome, history = evidence.outcomes.get(order_id, "no outcome"), evidence.histories.get(order_id)
        parcels = [effect.answer["id"] for effect in effects[order_id] if effect.operation == "ship" and effect.done]
        detail = want.detail or (parcels[0] if parcels else "a parcel")
        if not isinstance(outcome, Outcome) or (outcome.status, outcome.detail) != (want.status, detail):
            problems.append(f"{order_id} should be {want.status} ({detail}), is {outcome}")
        if history is None or history.events[-1]["type"] != "workflow_completed":
            problems.append(f"{order_id} has no completed history")
        did = Counter((effect.operation, effect.status) for effect in effects[order_id])
        if did != Counter(want.effects.items()):
            problems.append(f"{order_id} needs {words(Counter(want.effects.items()))}; the shop did {words(did)}")
    stray = set(effects) - {entry.order.id for entry in evidence.entries}
    problems += [f"the shop did something for {order_id!r}, which is not in the file" for order_id in sorted(stray)]
    by_status = Counter(outcome.status for outcome in evidence.outcomes.values() if isinstance(outcome, Outcome))
    seen = f"{by_status['shipped']} shipped and {by_status['rejected']} rejected, as computed from the file"
    return Proof("every order ended rightly", seen, problems)


def words(did: Counter[tuple[str, int]]) -> str:
    each = (f"{count} {name} ({status})" for (name, status), count in sorted(did.items()))
    return ", ".join(each) or "nothing"


def charged_once(evidence: Evidence) -> Proof:
    """One payment of the right amount for each order that must pay, none for the others, and the money adds up."""
    problems = []
    charges: dict[str, list[Money]] = defaultdict(list)
    balance: dict[str, Decimal] = defaultdict(Decimal)
    due: dict[str, Decimal] = defaultdict(Decimal)
    for effect in evidence.effects:
        if effect.done and effect.operation in ("charge", "refund"):
            amount, currency = Decimal(effect.details["amount"]), effect.details["currency"]
            balance[currency] += amount if effect.operation == "charge" else -amount
            if effect.operation == "charge":
                charges[effect.order_id].append((amount, currency))
    for entry in evidence.entries:
        order_id, want = entry.order.id, expected(entry.raw)
        bill = (total_of(entry.raw), entry.raw["currency"])
        wanted = [bill] if want.effects.get("charge") == DONE else []
        if charges[order_id] != wanted:
            problems.append(f"{order_id} was charged {bills(charges[order_id])}; should be {bills(wanted)}")
        if want.status == "shipped":
            due[bill[1]] += bill[0]
    problems += [
        f"the shop holds {balance[currency]} {currency}, the shipped orders are worth {due[currency]}"
        for currency in sorted(balance.keys() | due.keys())
        if balance[currency] != due[currency]
    ]
    count, orders = sum(map(len, charges.values())), sum(1 for paid in charges.values() if paid)
    return Proof(
        "no order was charged twice", f"{count} payments for {orders} orders, {len(due)} balances right", problems
    )


def bills(payments: list[Money]) -> str:
    return " and ".join(f"{amount} {currency}" for amount, currency in payments) or "nothing"


def one_effect_a_key(evidence: Evidence) -> Proof:
    """Every effect belongs to one activity of one history, and every recorded activity to one effect."""
    problems = []
    activities = {
        activity.key: activity for history in evidence.histories.values() for activity in history.activities()
    }
    effects = Counter(effect.key for effect in evidence.effects)
    problems += [f"key {key} had {count} effects" for key, count in effects.items() if count > 1]
    for effect in evidence.effects:
        activity = activities.get(effect.key)
        if activity is None:
            problems.append(f"{effect.operation} of {effect.order_id} has key {effect.key}, which no history knows")
        elif activity.name != effect.operation:
            problems.append(f"key {effect.key} is {activity.name} in the history, {effect.operation} at the shop")
    problems += [
        f"{activity.name} ({key}) has an outcome in the history, but no effect at the shop"
        for key, activity in activities.items()
        if activity.ended_at is not None and key not in effects
    ]
    repeats = sum(call.repeat for call in evidence.calls)
    seen = f"{len(evidence.effects)} effects; {repeats} repeated calls changed nothing"
    return Proof("one activity, one key, one effect", seen, problems)


def nothing_computed_again(evidence: Evidence) -> Proof:
    """Once an outcome is in the history, its activity never begins again: not after a crash, not by a zombie."""
    ended = {
        activity.key: activity
        for history in evidence.histories.values()
        for activity in history.activities()
        if activity.ended_at is not None
    }
    problems = [
        f"{call.operation} ({call.key}) began again {call.began_at - ended_at:.3f} s after its outcome was recorded"
        for call in evidence.calls
        if call.key in ended and (ended_at := ended[call.key].ended_at or 0.0) < call.began_at
    ]
    seen = f"{len(ended)} recorded outcomes, {len(problems)} of {len(evidence.calls)} calls began after theirs"
    return Proof("no recorded result was computed again", seen, problems)


def histories_replay(evidence: Evidence) -> Proof:
    """The workflow, run again over each history in this process, asks for exactly what is recorded there."""
    problems = list(replay_problems(evidence))
    events = sum(len(history.events) for history in evidence.histories.values())
    return Proof("every history replays", f"{len(evidence.histories)} histories, {events} events", problems)


def replay_problems(evidence: Evidence) -> Iterator[str]:
    for order_id, history in evidence.histories.items():
        try:
            derecho.replay(order_workflow, derecho.History.loads(history.text))
        except Exception as error:  # whatever it is, this history does not replay
            yield f"{order_id}: {type(error).__name__}: {error}"


def stock_adds_up(evidence: Evidence) -> Proof:
    """What left the shelf is what the shipped orders hold; no reservation was left behind."""
    left = Counter(SHELF)
    for entry in evidence.entries:
        if expected(entry.raw).status == "shipped":
            left.subtract(entry.raw["items"])
    problems = [
        f"{evidence.stock.get(article, 0)} of {article} on the shelf, should be {pieces}"
        for article, pieces in left.items()
        if evidence.stock.get(article, 0) != pieces
    ]
    gone = sum(SHELF.values()) - sum(evidence.stock.values())
    return Proof("the stock adds up", f"{gone} pieces of {len(SHELF)} articles left the shelf", problems)
