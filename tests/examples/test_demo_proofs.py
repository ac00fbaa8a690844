"""The demo's proofs accept what is true and refuse each forgery, so that a green demo says something."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import demo
from crashtest import proofs
from crashtest.evidence import Evidence, Recorded
from crashtest.proofs import Proof, prove
from crashtest.timeline import choose, timeline
from order import Outcome
from shop.ledger import Call, Effect

PROOFS: dict[str, Callable[[Evidence], Proof]] = {
    "killed": lambda evidence: proofs.killed_at_work(evidence, 1),
    "ended": proofs.ended_rightly,
    "charged": proofs.charged_once,
    "effects": proofs.one_effect_a_key,
    "again": proofs.nothing_computed_again,
    "replay": proofs.histories_replay,
    "stock": proofs.stock_adds_up,
}


def first(evidence: Evidence, operation: str) -> Effect:
    return next(effect for effect in evidence.effects if effect.operation == operation and effect.done)


def with_effect(evidence: Evidence, effect: Effect) -> Evidence:
    return replace(evidence, effects=[*evidence.effects, effect])


def without(evidence: Evidence, operation: str) -> Evidence:
    gone = first(evidence, operation)
    return replace(evidence, effects=[effect for effect in evidence.effects if effect is not gone])


def changed(evidence: Evidence, of: str, /, **change: Any) -> Evidence:
    old = first(evidence, of)
    effects = [replace(effect, **change) if effect is old else effect for effect in evidence.effects]
    return replace(evidence, effects=effects)


def with_outcome(evidence: Evidence, outcome: Outcome | str) -> Evidence:
    return replace(evidence, outcomes={**evidence.outcomes, "order-0003": outcome})


def with_history(evidence: Evidence, edit: Callable[[str], str]) -> Evidence:
    text = edit(evidence.histories["order-0003"].text)
    return replace(evidence, histories={**evidence.histories, "order-0003": Recorded.parse(text)})


def cut_last_event(text: str) -> str:
    return "\n".join(text.splitlines()[:-1]) + "\n"


def begun_again(evidence: Evidence) -> Evidence:
    """A call for an activity whose outcome has been recorded for a while."""
    activity = next(evidence.histories["order-0003"].activities())
    assert activity.ended_at is not None
    at = activity.ended_at + 0.25
    return replace(evidence, calls=[*evidence.calls, Call(activity.key, "reserve", at, at + 0.01, 200, True)])


FORGERIES: list[tuple[str, Callable[[Evidence], Evidence], str]] = [
    ("killed", lambda e: replace(e, kills=[]), "0 workers were killed, not 1"),
    ("killed", lambda e: replace(e, kills=[replace(e.kills[0], at=e.kills[0].at + 3600)]), "while no order was open"),
    ("killed", lambda e: replace(e, calls=[]), "before it did anything"),
    ("ended", lambda e: with_outcome(e, Outcome("rejected", "card declined")), "order-0003 should be shipped"),
    ("ended", lambda e: with_outcome(e, Outcome("shipped", "parcel-99999")), "parcel-99999"),
    ("ended", lambda e: with_outcome(e, "WorkflowFailed: no such thing"), "is WorkflowFailed: no such thing"),
    ("ended", lambda e: replace(e, outcomes={}), "is no outcome"),
    ("ended", lambda e: with_history(e, cut_last_event), "order-0003 has no completed history"),
    ("ended", lambda e: without(e, "release"), "needs .* 1 release"),
    ("ended", lambda e: with_effect(e, first(e, "ship")), "the shop did .* 2 ship"),
    ("ended", lambda e: changed(e, "charge", order_id="order-9"), "'order-9', which is not in the file"),
    ("charged", lambda e: with_effect(e, first(e, "charge")), r"was charged (\S+ \S+) and \1; should be \1"),
    ("charged", lambda e: with_effect(e, replace(first(e, "charge"), key="other")), "the shop holds"),
    ("charged", lambda e: without(e, "charge"), "was charged nothing"),
    ("charged", lambda e: without(e, "refund"), "the shop holds"),
    (
        "charged",
        lambda e: changed(e, "charge", details={"amount": "1", "currency": "EUR"}),
        "was charged 1 EUR; should",
    ),
    ("effects", lambda e: with_effect(e, first(e, "charge")), "had 2 effects"),
    ("effects", lambda e: changed(e, "charge", key="run:4:attempt-2"), "run:4:attempt-2, which no history knows"),
    ("effects", lambda e: changed(e, "charge", operation="ship"), "is charge in the history, ship at the shop"),
    ("effects", lambda e: without(e, "charge"), "has an outcome in the history, but no effect"),
    ("again", begun_again, r"reserve \(\S+\) began again 0\.250 s after its outcome was recorded"),
    ("replay", lambda e: with_history(e, lambda text: text.replace('"charge"', '"refund"')), "order-0003: Nondeter"),
    ("stock", lambda e: replace(e, stock={**e.stock, "candle": 7}), "7 of candle on the shelf"),
]


def test_true_evidence_is_accepted(evidence: Evidence) -> None:
    assert [problem for proof in prove(evidence, 1) for problem in proof.problems] == []


@pytest.mark.parametrize(("name", "forge", "message"), FORGERIES)
def test_a_forgery_is_refused(
    evidence: Evidence, name: str, forge: Callable[[Evidence], Evidence], message: str
) -> None:
    proof = PROOFS[name](forge(evidence))
    assert not proof.holds
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(proof.problems))


def test_each_proof_has_a_forgery(evidence: Evidence) -> None:
    assert len(prove(evidence, 1)) == len(PROOFS)
    assert {name for name, _, _ in FORGERIES} == set(PROOFS)


def test_the_timeline_tells_the_life_of_the_order_that_went_through_most(evidence: Evidence) -> None:
    lines = [text for text, _ in timeline(evidence, choose(evidence))]
    told = [text.split()[2] for text in lines]
    assert told[0] == "started"
    assert told[-1] == "ended"
    assert {"reserve", "charge", "sleep", "signal", "ship", "refund", "release", "SIGKILL"} < set(told)
    assert "no carrier to AQ" in lines[-1]


@pytest.mark.parametrize("forged", [False, True])
def test_the_demo_ends_with_the_status_of_its_proofs(
    forged: bool, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def play(*_: object) -> Evidence:
        return with_effect(evidence, first(evidence, "charge")) if forged else evidence

    monkeypatch.setattr(demo, "play", play)
    assert demo.main(["--kills", "1"]) == int(forged)
    said = capsys.readouterr().out
    assert ("FAILED: this is not proved: no order was charged twice" in said) is forged
    assert ("✗ no order was charged twice" in said) is forged
    assert ("PASSED" in said) is not forged


def test_a_bad_orders_file_is_an_error_of_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "orders.jsonl").write_text("{}\n")
    assert demo.main(["--orders", str(tmp_path / "orders.jsonl")]) == 2
    assert "orders.jsonl, line 1: Object missing required field `id`" in capsys.readouterr().err
