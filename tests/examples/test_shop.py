"""The shop answers a key once, whoever asks how often, and its books say what happened."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from shop.client import Rejected, Shop, ShopUnavailable
from shop.ledger import Ledger, LedgerReader
from shop.service import Weather, make_server
from tests.house.repository import ROOT

CHARGE = {"order": "order-1", "card": "4000-1111", "amount": "12.50", "currency": "EUR"}


@dataclass(frozen=True)
class Counter:
    """A running shop: how to ask it, and what its books say."""

    port: int
    books: LedgerReader

    def ask(self, operation: str, key: str, body: object) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", f"/{operation}", json.dumps(body), {"Idempotency-Key": key} if key else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Counter]:
    ledger = Ledger(tmp_path / "shop.db", {"kite": 10, "orrery": 0})
    server = make_server(ledger, seed=None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    books = LedgerReader(tmp_path / "shop.db")
    yield Counter(server.server_port, books)
    server.shutdown()
    thread.join()
    server.server_close()
    books.close()
    ledger.close()


def test_a_repeated_key_gets_the_first_answer_and_has_no_second_effect(shop: Counter) -> None:
    first = shop.ask("charge", "key-1", CHARGE)
    again = shop.ask("charge", "key-1", CHARGE | {"amount": "99.00"})
    assert first == again
    assert first[0] == 200
    assert [(effect.key, effect.details["amount"]) for effect in shop.books.effects()] == [("key-1", "12.50")]
    assert [call.repeat for call in shop.books.calls()] == [False, True]


def test_twenty_callers_with_one_key_at_once_make_one_effect(shop: Counter) -> None:
    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: shop.ask("charge", "key-1", CHARGE), range(20)))
    assert len({answer["id"] for _, answer in answers}) == 1
    assert len(shop.books.effects()) == 1
    assert len(shop.books.calls()) == 20
    assert sum(call.repeat for call in shop.books.calls()) == 19


def test_another_key_is_another_payment(shop: Counter) -> None:
    assert shop.ask("charge", "key-1", CHARGE) != shop.ask("charge", "key-2", CHARGE)
    assert len(shop.books.effects()) == 2


def test_a_refusal_is_remembered_like_an_answer(shop: Counter) -> None:
    declined = CHARGE | {"card": "4000-0002"}
    assert shop.ask("charge", "key-1", declined) == (402, {"error": "card declined"})
    assert shop.ask("charge", "key-1", CHARGE) == (402, {"error": "card declined"})
    (effect,) = shop.books.effects()
    assert not effect.done


def test_what_is_reserved_leaves_the_shelf_and_comes_back_when_released(shop: Counter) -> None:
    _, reserved = shop.ask("reserve", "key-1", {"order": "order-1", "items": {"kite": 4}})
    assert shop.books.stock()["kite"] == 6
    for _ in range(2):
        assert shop.ask("release", "key-2", {"reservation": reserved["id"]})[0] == 200
    assert shop.books.stock()["kite"] == 10
    assert [effect.order_id for effect in shop.books.effects()] == ["order-1", "order-1"]


def test_an_order_is_reserved_whole_or_not_at_all(shop: Counter) -> None:
    status, answer = shop.ask("reserve", "key-1", {"order": "order-1", "items": {"kite": 4, "orrery": 1}})
    assert (status, answer) == (409, {"error": "out of stock: orrery"})
    assert shop.books.stock() == {"kite": 10, "orrery": 0}


def test_a_refund_gives_back_what_was_paid(shop: Counter) -> None:
    _, paid = shop.ask("charge", "key-1", CHARGE)
    assert shop.ask("refund", "key-2", {"payment": paid["id"]})[0] == 200
    assert shop.books.effects()[1].details == {"payment": paid["id"], "amount": "12.50", "currency": "EUR"}


def test_nothing_is_shipped_to_where_no_carrier_goes(shop: Counter) -> None:
    _, reserved = shop.ask("reserve", "key-1", {"order": "order-1", "items": {"kite": 1}})
    body = {"order": "order-1", "country": "AQ", "reservation": reserved["id"]}
    assert shop.ask("ship", "key-2", body) == (422, {"error": "no carrier to AQ"})
    assert shop.ask("ship", "key-3", body | {"country": "DE"})[0] == 200


@pytest.mark.parametrize(
    ("operation", "key", "body", "status"),
    [
        ("charge", "", CHARGE, 400),
        ("charge", "key", ["not an object"], 400),
        ("charge", "key", {}, 400),
        ("refund", "key", {"payment": "unknown"}, 404),
        ("dance", "key", {}, 404),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(
    shop: Counter, operation: str, key: str, body: object, status: int
) -> None:
    assert shop.ask(operation, key, body)[0] == status


def test_the_books_show_a_call_while_it_is_worked_on(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "shop.db", {})
    books = LedgerReader(tmp_path / "shop.db")
    call, earlier = ledger.begin("key", "charge")
    assert (earlier, books.in_flight(since=0)) == (0, 1)
    ledger.end(call, 503, repeat=False)
    assert books.in_flight(since=0) == 0
    assert ledger.begin("key", "charge")[1] == 1
    books.close()
    ledger.close()


def test_the_weather_fails_no_key_twice_and_is_the_same_for_the_same_seed() -> None:
    keys = [f"key-{number}" for number in range(2_000)]
    first = [Weather.of(7, key, 0).fails for key in keys]
    assert first == [Weather.of(7, key, 0).fails for key in keys]
    assert {"before", "after", None} == set(first)
    assert {Weather.of(7, key, 1).fails for key in keys} == {None}


async def test_the_client_tells_a_final_no_from_an_unknown_outcome(shop: Counter) -> None:
    client = Shop(shop.port)
    assert (await client.call("charge", "key-1", **CHARGE)).startswith("pay-")
    with pytest.raises(Rejected, match="insufficient funds"):
        await client.call("charge", "key-2", **(CHARGE | {"card": "4000-9995"}))
    with pytest.raises(ShopUnavailable, match="404"):
        await client.call("dance", "key-3")


async def test_an_answer_that_breaks_off_is_an_unknown_outcome() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n{")
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        with pytest.raises(ShopUnavailable, match="broke off"):
            await Shop(server.sockets[0].getsockname()[1]).call("charge", "key-1")


def test_the_service_ends_when_the_process_that_started_it_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shop.service", str(tmp_path / "shop.db")]
    with subprocess.Popen(
        command, cwd=ROOT / "examples", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdin is not None
        assert service.stdout is not None
        assert int(service.stdout.readline()) > 0
        service.stdin.close()
        assert service.wait(timeout=10) == 0
