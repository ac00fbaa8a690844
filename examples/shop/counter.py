"""What the shop does at the counter: each operation inside the one transaction that also remembers its answer.

An operation returns the order it is for, the answer to give, and details for the books; or raises `Refusal`.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from shop.ledger import Ledger
from shop.rules import NO_CARRIER, decline_reason

Served: TypeAlias = tuple[str, dict[str, Any], dict[str, Any]]


class Refusal(Exception):
    """An answer for good: asking again with the same key will not change it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def serve(ledger: Ledger, operation: str, body: dict[str, Any]) -> Served:
    serving = OPERATIONS.get(operation)
    if serving is None:
        raise Refusal(404, f"no such operation: {operation}")
    try:
        return serving(ledger, body)
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(400, f"{operation} does not understand this body: {error!r}") from error


def reserve(ledger: Ledger, body: dict[str, Any]) -> Served:
    items: dict[str, int] = body["items"]
    for article, pieces in items.items():
        if ledger.pieces(article) < pieces:
            raise Refusal(409, f"out of stock: {article}")
    ledger.move((article, -pieces) for article, pieces in items.items())
    return body["order"], {"id": ledger.next_id("res")}, {"items": items}


def release(ledger: Ledger, body: dict[str, Any]) -> Served:
    reserved = ledger.find("reserve", body["reservation"])
    if reserved is None:
        raise Refusal(404, f"no such reservation: {body['reservation']}")
    ledger.move(reserved.details["items"].items())
    return reserved.order_id, {"id": ledger.next_id("rel")}, {"reservation": body["reservation"]}


def charge(ledger: Ledger, body: dict[str, Any]) -> Served:
    reason = decline_reason(body["card"])
    if reason:
        raise Refusal(402, reason)
    money = {"amount": body["amount"], "currency": body["currency"]}
    return body["order"], {"id": ledger.next_id("pay")}, money


def refund(ledger: Ledger, body: dict[str, Any]) -> Served:
    payment = ledger.find("charge", body["payment"])
    if payment is None:
        raise Refusal(404, f"no such payment: {body['payment']}")
    return payment.order_id, {"id": ledger.next_id("ref")}, {"payment": body["payment"], **payment.details}


def ship(ledger: Ledger, body: dict[str, Any]) -> Served:
    if body["country"] in NO_CARRIER:
        raise Refusal(422, f"no carrier to {body['country']}")
    if ledger.find("reserve", body["reservation"]) is None:
        raise Refusal(404, f"no such reservation: {body['reservation']}")
    return body["order"], {"id": ledger.next_id("parcel")}, {"reservation": body["reservation"]}


OPERATIONS: dict[str, Callable[[Ledger, dict[str, Any]], Served]] = {
    "reserve": reserve,
    "release": release,
    "charge": charge,
    "refund": refund,
    "ship": ship,
}
