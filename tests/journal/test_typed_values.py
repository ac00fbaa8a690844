"""A value comes back equal, and of its own class, from the type that its annotation names."""

import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from derecho.journal.payloads import Converter
from derecho.journal.signatures import decode_value, encode_value

T = TypeVar("T")
OrderId = NewType("OrderId", str)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Kind(StrEnum):
    GIFT = "gift"


@dataclass
class Item:
    sku: str
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    id: UUID
    items: list[Item]
    notes: dict[str, str] = field(default_factory=dict)
    parent: "Order | None" = None


@dataclass
class Box(Generic[T]):
    content: T


class Point(NamedTuple):
    x: int
    y: float


class Address(TypedDict, total=False):
    city: str
    since: date


class Money(msgspec.Struct, frozen=True):
    amount: Decimal
    currency: str = "EUR"


class Card(msgspec.Struct, tag=True):
    number: str


class Cash(msgspec.Struct, tag=True):
    coins: int


class Person(pydantic.BaseModel):
    name: str
    born: date | None = None


@attrs.define
class Parcel:
    weight: float
    label: str


ROME = timezone(timedelta(hours=2))
ID = UUID("12345678-1234-5678-1234-567812345678")
ORDER = Order(id=ID, items=[Item("a"), Item("b", 2)], parent=Order(id=ID, items=[]))

MATRIX: list[tuple[Any, Any]] = [
    (str, "naïve ☃ \U0001f600"),
    (str, 'line\u2028separator\u0085 "quoted" \\ null'),
    (bool, False),
    (int, 2**80),
    (float, 1e308),
    (float, -0.0),
    (None, None),
    (Item, Item("a", 2)),
    (Order, ORDER),
    (Box[int], Box(1)),
    (Box[Order], Box(ORDER)),
    (Point, Point(1, 2.5)),
    (Address, {"city": "Rome", "since": date(2020, 2, 29)}),
    (Colour, Colour.RED),
    (Level, Level.HIGH),
    (Kind, Kind.GIFT),
    (Literal["a", "b"], "b"),
    (datetime, datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    (datetime, datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=ROME)),
    (datetime, datetime(2024, 1, 2, 3, 4, 5)),  # noqa: DTZ001  (a naive one is the author's choice)
    (date, date(1, 1, 1)),
    (time, time(23, 59, 59)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (Decimal, Decimal("0.10000000000000000000000000001")),
    (UUID, ID),
    (bytes, b"\x00\xff\xfe"),
    (bytearray, bytearray(b"\x00\xff")),
    (list[Item], [Item("a"), Item("b")]),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (dict[int, str], {1: "a"}),
    (dict[UUID, list[Point]], {ID: [Point(0, 0.0)]}),
    (dict[Colour, int], {Colour.RED: 1}),
    (dict[str, int | None], {"a": None}),
    (int | str, "1"),
    (Item | None, None),
    (Card | Cash, Cash(3)),
    (Money, Money(Decimal("9.99"))),
    (Person, Person(name="Ann", born=date(1990, 1, 1))),
    (list[Person], [Person(name="Ann")]),
    (dict[str, Person | None], {"a": Person(name="Ann"), "b": None}),
    (Parcel, Parcel(1.5, "fragile")),
    (PurePosixPath, PurePosixPath("/tmp/a b")),
    (Path, Path("relative/ü")),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1")),
    (ipaddress.IPv6Network, ipaddress.IPv6Network("::/64")),
    (Annotated[int, "meta"], 5),
    (OrderId, OrderId("o-1")),
]


@pytest.mark.parametrize(("annotation", "value"), MATRIX, ids=[f"{n}-{a!s:.40}" for n, (a, _) in enumerate(MATRIX)])
def test_a_value_comes_back_equal_and_of_its_class(annotation: Any, value: Any) -> None:
    converter = Converter()
    converter.check_type(annotation)
    payload = encode_value(value, annotation, converter, "it")
    # The journal is JSON text: the payload must survive being written down.
    written = msgspec.json.decode(msgspec.json.encode(payload), type=type(payload))
    back = decode_value(written, annotation, converter, "it")
    assert back == value
    assert repr(back) == repr(value)
