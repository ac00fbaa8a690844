"""What cannot come back as it was is refused where it is given, with the place inside the value and the remedy."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from derecho import PayloadError
from derecho.journal.payloads import Converter
from derecho.journal.signatures import UNTYPED, decode_value, encode_value


@dataclass
class Reading:
    at: str
    values: list[float | None]


class Money(msgspec.Struct):
    amount: float


class Model(pydantic.BaseModel):
    amount: float


@attrs.define
class Parcel:
    weight: float


class Strange:
    def __repr__(self) -> str:
        return "<strange>"


NOT_FINITE = [math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("number", NOT_FINITE, ids=repr)
@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda x: x, r"\$"),
        (lambda x: [1.0, x], r"\$\[1\]"),
        (lambda x: (None, x), r"\$\[1\]"),
        (lambda x: {"a": {"b": x}}, r"\$\.a\.b"),
        (lambda x: Reading("now", [None, x]), r"\$\.values\[1\]"),
        (lambda x: Money(x), r"\$\.amount"),
        (lambda x: Model(amount=x), r"\$\.amount"),
        (lambda x: Parcel(x), r"\$\.weight"),
    ],
)
def test_infinite_and_nan_floats_are_refused_with_their_place(
    number: float, make: Callable[[float], Any], path: str
) -> None:
    with pytest.raises(PayloadError, match=f"`{path}`"):
        Converter().encode(make(number), "argument `reading`")


def test_a_null_that_is_meant_is_no_infinite_float() -> None:
    assert Converter().encode({"a": None, "b": "null"}, "it").raw() == b'{"a":null,"b":"null"}'


@dataclass
class Order:
    id: str


UNPLAIN: list[Any] = [
    UUID(int=1),
    datetime(2024, 1, 1, tzinfo=UTC),
    Decimal("1.5"),
    Order("1"),
    (1, 2),
    {1, 2},
    b"bytes",
    {1: "int key"},
    [{"deep": (1,)}],
    Money(1.0),
]


@pytest.mark.parametrize("value", UNPLAIN, ids=repr)
def test_an_untyped_value_that_would_come_back_different_is_refused_with_advice(value: Any) -> None:
    with pytest.raises(PayloadError, match=r"would come back as something else: annotate its type \(or pass type=…\)"):
        encode_value(value, UNTYPED, Converter(), "the result of step 'fetch'")


@pytest.mark.parametrize("value", [None, True, 1, 2**80, 1.5, "text", [1, ["a"]], {"a": [1, {"b": None}]}], ids=repr)
def test_an_untyped_value_that_json_keeps_is_taken(value: Any) -> None:
    converter = Converter()
    back = decode_value(encode_value(value, UNTYPED, converter, "it"), UNTYPED, converter, "it")
    assert (back, type(back)) == (value, type(value))


def test_a_value_annotated_any_comes_back_as_plain_json() -> None:
    converter = Converter()
    assert decode_value(encode_value((1, Order("1")), Any, converter, "it"), Any, converter, "it") == [1, {"id": "1"}]


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (int, "1", r"Expected `int`, got `str`"),
        (Order, {"id": 1}, r"at `\$\.id`"),
        (list[Order], [{"id": "1"}, {}], r"at `\$\[1\]`"),
        (dict[str, int], {"a": "b"}, r"at `\$\[\.\.\.\]`"),
        (Model, {"amount": "much"}, "amount"),
        (bytes, "not base64!", "Invalid base64"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_place(annotation: Any, value: Any, path: str) -> None:
    with pytest.raises(PayloadError, match=f"(?s)argument `order` of workflow 'ship' cannot be decoded as .*{path}"):
        encode_value(value, annotation, Converter(), "argument `order` of workflow 'ship'")


@pytest.mark.parametrize(
    "value",
    [Strange(), 1j, object, lambda: None, {(1, 2): "tuple key"}],
    ids=["object", "complex", "class", "function", "tuple key"],
)
def test_a_value_without_a_form_is_refused_by_name(value: Any) -> None:
    with pytest.raises(PayloadError, match="argument `x` cannot be encoded as json"):
        Converter().encode(value, "argument `x`")


def test_a_lone_surrogate_is_refused_because_no_database_keeps_it() -> None:
    with pytest.raises(PayloadError, match="surrogate"):
        Converter().encode("\ud800", "argument `text`")


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PayloadError, match="argument `x`"):
        Converter().encode(endless, "argument `x`")


def test_a_value_over_the_limit_is_refused_with_the_remedy() -> None:
    converter = Converter(limit=10)
    assert converter.encode("x" * 8, "it")
    with pytest.raises(PayloadError, match=r"has 11 bytes, more than the limit of 10: store the value elsewhere"):
        converter.encode("x" * 9, "it")
