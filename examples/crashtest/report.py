"""What the demo prints when all is over: a table of numbers, the proofs, one order's life, and what to try next."""

import re
import textwrap
from collections import Counter

from crashtest.evidence import Evidence
from crashtest.proofs import Proof
from crashtest.screen import Screen
from crashtest.timeline import choose, timeline
from order import Outcome

PROBLEMS_SHOWN = 5


def report(screen: Screen, evidence: Evidence, proofs: list[Proof]) -> None:
    heading(screen, "Summary")
    for name, number, remark in summary(evidence):
        screen.say(f"  {name:<11} {number:>6,}  {remark}".rstrip())
    if evidence.histories:
        tell_one_life(screen, evidence)
    heading(screen, "Proofs, from the orders file, the shop's books and the histories")
    for proof in proofs:
        mark, style = ("✓", "green") if proof.holds else ("✗", "bold red")
        seen = proof.seen if proof.holds else f"{len(proof.problems)} problems"
        screen.say(f"  {mark} {proof.title:<38} {seen}", style=style)
        for problem in proof.problems[:PROBLEMS_SHOWN]:
            screen.say(textwrap.indent(problem, "      "), style="red")
        if len(proof.problems) > PROBLEMS_SHOWN:
            screen.say(f"      … and {len(proof.problems) - PROBLEMS_SHOWN} more", style="red")


def heading(screen: Screen, text: str) -> None:
    screen.say("")
    screen.say(text, style="bold")


def summary(evidence: Evidence) -> list[tuple[str, int, str]]:
    outcomes = [outcome for outcome in evidence.outcomes.values() if isinstance(outcome, Outcome)]
    reasons = Counter(re.split(": | to ", outcome.detail)[0] for outcome in outcomes if outcome.status == "rejected")
    histories = evidence.histories.values()
    answers = [
        event["payload"]["json"]
        for history in histories
        for event in history.events
        if event["type"] == "signal_received"
    ]
    activities = [activity for history in histories for activity in history.activities()]
    taken_over = sum(len(history.workers) > 1 for history in histories)
    repeats = sum(call.repeat for call in evidence.calls)
    failures = sum((call.status or 0) >= 500 for call in evidence.calls)
    shipped = sum(outcome.status == "shipped" for outcome in outcomes)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    killed, attempts = len(evidence.kills), sum(activity.attempts for activity in activities)
    return [
        ("orders", len(evidence.entries), f"{shipped} shipped, {len(outcomes) - shipped} rejected"),
        ("rejected", len(outcomes) - shipped, why),
        ("approvals", len(answers), f"of large orders, by signal; {answers.count(False)} refused"),
        ("workers", killed + 1, f"{killed} killed with SIGKILL, the last one stopped in order"),
        ("takeovers", taken_over, "orders began in one process and went on in another"),
        ("activities", len(activities), f"in {attempts} attempts"),
        (
            "calls",
            len(evidence.calls),
            f"at the shop; {failures} answered 503, {repeats} asked for what was done already",
        ),
    ]


def tell_one_life(screen: Screen, evidence: Evidence) -> None:
    order_id = choose(evidence)
    entry = next(entry for entry in evidence.entries if entry.order.id == order_id)
    order = entry.order
    who = f"{entry.raw['customer']}, " if entry.raw.get("customer") else ""
    heading(screen, f"One life: {order_id} ({who}{len(order.items)} articles, {order.total} {order.currency})")
    for text, is_kill in timeline(evidence, order_id):
        screen.say(f"  {text}", style="red" if is_kill else "")
