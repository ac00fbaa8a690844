"""Reads an orders file: one JSON object a line, checked here so that a bad file is one clear message and no crash.

The shop must be able to serve each order by itself, or to refuse it, whatever the others do: otherwise what becomes of
an order would depend on which comes first, and could not be computed from the file.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from order import Order
from shop.rules import SHELF


class OrdersError(Exception):
    """The file cannot be used; the message says which line and why."""


@dataclass(frozen=True)
class Entry:
    """A line of the file: as it stands there, and as the workflow takes it."""

    raw: dict[str, Any]
    order: Order


def read_orders(path: Path) -> list[Entry]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() also splits at U+2028, inside a note
    except (OSError, UnicodeDecodeError) as error:
        raise OrdersError(f"{path} cannot be read: {error}") from error
    entries = [parse(line, f"{path.name}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise OrdersError(f"{path} holds no orders: one JSON object a line, as in examples/orders.jsonl")
    doubled = [order_id for order_id, count in Counter(entry.order.id for entry in entries).items() if count > 1]
    if doubled:
        raise OrdersError(f"{path.name}: {', '.join(doubled[:3])} stands there more than once")
    check_demand(path.name, entries)
    return entries


def parse(line: str, place: str) -> Entry:
    try:
        raw = json.loads(line, parse_float=Decimal)
        order = msgspec.json.decode(line, type=Order)
    except ValueError as error:  # msgspec's errors are ValueErrors and name the field
        raise OrdersError(f"{place}: {error}") from error
    problems = [
        (not order.id.strip(), "the id is empty"),
        (not order.items, "an order needs at least one article"),
        (any(pieces < 1 for pieces in order.items.values()), "pieces must be at least 1"),
        (not order.total.is_finite() or order.total < 0, "the total must be 0 or more"),
    ]
    problems += [(article not in SHELF, f"the shop does not know {article!r}") for article in order.items]
    for wrong, message in problems:
        if wrong:
            raise OrdersError(f"{place}: {message}")
    return Entry(raw, order)


def check_demand(name: str, entries: Iterable[Entry]) -> None:
    """Together, the orders that can be served must not want more of an article than there is."""
    demand: Counter[str] = Counter()
    for entry in entries:
        if all(pieces <= SHELF[article] for article, pieces in entry.order.items.items()):
            demand.update(entry.order.items)
    for article, pieces in demand.items():
        if pieces > SHELF[article]:
            raise OrdersError(
                f"{name}: all orders together want {pieces:,} of {article}, the shop has {SHELF[article]:,}; "
                "who gets one would depend on who comes first"
            )
