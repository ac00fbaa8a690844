"""The orders file is varied and stays what it is, a bad one is one clear message, and the oracle knows each ending."""

import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crashtest.oracle import expected, needs_approval
from crashtest.orders import OrdersError, read_orders
from tests.house.repository import ROOT

ORDERS = ROOT / "examples" / "orders.jsonl"
PLAIN: dict[str, Any] = {
    "id": "order-1",
    "items": {"kite": 2},
    "total": "48.00",
    "currency": "EUR",
    "card": "4000-1111",
    "country": "DE",
}


def write(path: Path, *orders: object) -> Path:
    path.write_bytes(b"\n".join(msgspec.json.encode(order) for order in orders))
    return path


def test_the_file_is_what_its_script_writes() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "make_orders.py"], check=True, capture_output=True)
    assert done.stdout.decode() == ORDERS.read_text()


def test_the_orders_are_many_and_varied() -> None:
    entries = read_orders(ORDERS)
    assert len(entries) >= 200
    assert {len(entry.order.items) for entry in entries} == {1, 2, 3, 4, 5, 6}
    assert len({entry.order.currency for entry in entries}) >= 4
    assert min(entry.order.total for entry in entries) == 0
    assert {frozenset(entry.raw) - frozenset(PLAIN) for entry in entries} >= {frozenset({"customer", "note"})}
    endings = Counter((expected(entry.raw).detail or "shipped").partition(":")[0] for entry in entries)
    assert set(endings) >= {"shipped", "out of stock", "card declined", "insufficient funds", "not approved"}
    assert endings["shipped"] > 150
    assert sum(needs_approval(entry.raw) for entry in entries) > 20


@pytest.mark.parametrize(
    ("change", "status", "detail", "effects"),
    [
        ({}, "shipped", None, "reserve charge ship"),
        ({"total": 0}, "shipped", None, "reserve charge ship"),
        ({"items": {"kite": 1, "orrery": 1}}, "rejected", "out of stock: orrery", "reserve"),
        ({"items": {"pencil": 50_000}}, "rejected", "out of stock: pencil", "reserve"),
        ({"card": "4000-0002"}, "rejected", "card declined", "reserve charge release"),
        ({"card": "4000-9995", "total": 20_000}, "rejected", "insufficient funds", "reserve charge release"),
        ({"total": "9999.99"}, "shipped", None, "reserve charge ship"),
        ({"total": 10_000}, "rejected", "not approved", "reserve charge refund release"),
        ({"country": "AQ"}, "rejected", "no carrier to AQ", "reserve charge refund release ship"),
        ({"country": "AQ", "total": 10_000}, "rejected", "not approved", "reserve charge refund release"),
    ],
)
def test_the_oracle_knows_what_must_become_of_an_order(
    change: dict[str, Any], status: str, detail: str | None, effects: str
) -> None:
    want = expected(PLAIN | change)
    assert (want.status, want.detail) == (status, detail)
    assert set(want.effects) == set(effects.split())


@pytest.mark.parametrize(("total", "large"), [("999.99", False), (1000, True), ("1000.00", True)])
def test_large_orders_begin_at_a_thousand(total: str | int, large: bool) -> None:
    assert needs_approval(PLAIN | {"total": total}) is large


def test_numbers_and_text_are_read_alike(tmp_path: Path) -> None:
    path = write(tmp_path / "orders.jsonl", PLAIN | {"total": 4.1}, PLAIN | {"id": "order-2", "total": "4.1"})
    assert [entry.order.total for entry in read_orders(path)] == [Decimal("4.1"), Decimal("4.1")]


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        ([], "holds no orders"),
        ([PLAIN, "not an order"], "line 2: Expected `object`"),
        ([PLAIN | {"items": {"kite": "two"}}], r"line 1: Expected `int`, got `str` - at `\$.items"),
        ([{name: value for name, value in PLAIN.items() if name != "card"}], "missing required field `card`"),
        ([PLAIN | {"id": " "}], "the id is empty"),
        ([PLAIN | {"items": {}}], "at least one article"),
        ([PLAIN | {"items": {"kite": 0}}], "pieces must be at least 1"),
        ([PLAIN | {"items": {"dragon": 1}}], "does not know 'dragon'"),
        ([PLAIN | {"total": -1}], "the total must be 0 or more"),
        ([PLAIN | {"total": "NaN"}], "the total must be 0 or more"),
        ([PLAIN, PLAIN], "order-1 stands there more than once"),
        ([PLAIN | {"id": str(i), "items": {"kite": 30_000}} for i in range(2)], "would depend on who comes first"),
    ],
)
def test_a_bad_file_is_one_clear_message(tmp_path: Path, orders: list[object], message: str) -> None:
    with pytest.raises(OrdersError, match=message):
        read_orders(write(tmp_path / "orders.jsonl", *orders))


def test_a_missing_file_and_a_binary_one_are_clear_messages_too(tmp_path: Path) -> None:
    with pytest.raises(OrdersError, match="cannot be read"):
        read_orders(tmp_path / "missing.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OrdersError, match="cannot be read"):
        read_orders(tmp_path / "binary")
