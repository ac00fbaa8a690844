"""What must become of an order, computed from its line in the file and from the shop's rules, not from the workflow.

It says the rules in its own words, on purpose: an oracle that imports what it judges agrees with every mistake.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from shop.rules import NO_CARRIER, SHELF, decline_reason

NEEDS_APPROVAL = 1_000
APPROVED_BELOW = 10_000

DONE, DECLINED, SOLD_OUT, NO_WAY = 200, 402, 409, 422


@dataclass(frozen=True)
class Expected:
    """`detail` is None where the parcel's number stands; `effects`: the shop's answer to each operation, once."""

    status: str
    detail: str | None
    effects: dict[str, int]


def total_of(raw: dict[str, Any]) -> Decimal:
    return Decimal(str(raw["total"]))


def needs_approval(raw: dict[str, Any]) -> bool:
    return total_of(raw) >= NEEDS_APPROVAL


def is_approved(raw: dict[str, Any]) -> bool:
    """What the demo's reviewer says to a large order."""
    return total_of(raw) < APPROVED_BELOW


def expected(raw: dict[str, Any]) -> Expected:
    for article, pieces in raw["items"].items():
        if pieces > SHELF[article]:
            return Expected("rejected", f"out of stock: {article}", {"reserve": SOLD_OUT})
    declined = decline_reason(raw["card"])
    if declined:
        return Expected("rejected", declined, {"reserve": DONE, "charge": DECLINED, "release": DONE})
    paid_and_undone = {"reserve": DONE, "charge": DONE, "refund": DONE, "release": DONE}
    if needs_approval(raw) and not is_approved(raw):
        return Expected("rejected", "not approved", paid_and_undone)
    if raw["country"] in NO_CARRIER:
        return Expected("rejected", f"no carrier to {raw['country']}", {**paid_and_undone, "ship": NO_WAY})
    return Expected("shipped", None, {"reserve": DONE, "charge": DONE, "ship": DONE})
