"""The typed face of a function: what is given is what arrives, whatever the shape of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from derecho import DefinitionError, PayloadError
from derecho.journal.payloads import Converter
from derecho.journal.signatures import Signature

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass
class Order:
    id: str


def plain(order: Order, count: int) -> str: ...  # type: ignore[empty-body]  # only its signature is read
def defaults(a: int, b: int = 2, c: str = "c") -> None: ...
def keyword_only(a: int, *, dry: bool = False, note: str) -> None: ...
def positional_only(a: int, /, b: int = 1) -> None: ...
def rest(a: int, *more: Order) -> None: ...
def rest_after_default(a: int = 1, *more: int) -> None: ...
def rest_and_keyword(a: int, *more: int, flag: bool = False) -> None: ...
def nothing() -> None: ...
def unannotated(a, b=2): ...  # type: ignore[no-untyped-def]  # on purpose


def called(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call as they arrive on the other side."""
    signature, converter = Signature(fn, f"activity {fn.__name__!r}"), Converter()
    return signature.decode(signature.encode(signature.bind(args, kwargs), converter), converter)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "arrived"),
    [
        (plain, (Order("1"), 2), {}, ([Order("1"), 2], {})),
        (plain, (), {"count": 2, "order": Order("1")}, ([Order("1"), 2], {})),
        (defaults, (1,), {}, ([1], {})),
        (defaults, (1, 3), {}, ([1, 3], {})),
        (defaults, (1,), {"c": "x"}, ([1, 2, "x"], {})),
        (keyword_only, (1,), {"note": "n"}, ([1], {"dry": False, "note": "n"})),
        (keyword_only, (1,), {"note": "n", "dry": True}, ([1], {"dry": True, "note": "n"})),
        (positional_only, (1,), {}, ([1], {})),
        (positional_only, (1, 5), {}, ([1, 5], {})),
        (rest, (1,), {}, ([1], {})),
        (rest, (1, Order("a"), Order("b")), {}, ([1, Order("a"), Order("b")], {})),
        (rest_after_default, (), {}, ([1], {})),
        (rest_after_default, (1, 2, 3), {}, ([1, 2, 3], {})),
        (rest_and_keyword, (1, 2, 3), {"flag": True}, ([1, 2, 3], {"flag": True})),
        (rest_and_keyword, (1, 2, 3), {}, ([1, 2, 3], {"flag": False})),
        (nothing, (), {}, ([], {})),
        (unannotated, ("a",), {"b": [1]}, (["a", [1]], {})),
    ],
)
def test_arguments_arrive_as_they_were_given(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], arrived: tuple[list[Any], dict[str, Any]]
) -> None:
    got = called(fn, *args, **kwargs)
    assert got == arrived
    fn(*got[0], **got[1])


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "message"),
    [
        (plain, (Order("1"),), {}, "activity 'plain': missing a required argument: 'count'"),
        (plain, (1, 2, 3), {}, "activity 'plain': too many positional arguments"),
        (defaults, (1,), {"d": 1}, "got an unexpected keyword argument 'd'"),
        (keyword_only, (1,), {}, "missing a required"),
    ],
)
def test_a_call_that_the_function_would_refuse_is_a_type_error(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        called(fn, *args, **kwargs)


@pytest.mark.parametrize(
    ("fn", "args", "message"),
    [
        (plain, (Order("1"), "two"), "argument `count` of activity 'plain' .* Expected `int`"),
        (plain, ({"id": 1}, 2), r"argument `order` of activity 'plain' .* at `\$\.id`"),
        (rest, (1, Order("a"), 2), r"argument `\*1` of activity 'rest'"),
        (unannotated, ((1, 2),), "argument `a` of activity 'unannotated' .* annotate its type"),
    ],
)
def test_a_wrong_argument_is_refused_by_parameter_and_path(
    fn: Callable[..., Any], args: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(PayloadError, match=f"(?s){message}"):
        called(fn, *args)


def test_a_parameter_added_with_a_default_takes_old_calls() -> None:
    converter = Converter()
    recorded = Signature(positional_only, "it").encode([1], converter)
    assert Signature(defaults, "it").decode(recorded, converter) == ([1], {})


def test_a_parameter_added_without_a_default_is_named() -> None:
    converter = Converter()
    recorded = Signature(positional_only, "it").encode([1], converter)
    with pytest.raises(PayloadError, match="needs `count`, which was not recorded: give it a default"):
        Signature(lambda order, count: None, "it").decode(recorded, converter)


def test_a_parameter_that_was_removed_is_counted() -> None:
    converter = Converter()
    recorded = Signature(defaults, "it").encode([1, 2], converter)
    with pytest.raises(PayloadError, match="takes 0 arguments, but 2 were recorded"):
        Signature(nothing, "it").decode(recorded, converter)


def test_arbitrary_keywords_are_refused_when_the_function_is_defined() -> None:
    def open_ended(a: int, **options: int) -> None: ...

    with pytest.raises(DefinitionError, match=r"activity 'x': \*\*options cannot be recorded: name the parameters"):
        Signature(open_ended, "activity 'x'")


def test_an_annotation_that_cannot_be_resolved_is_a_definition_error() -> None:
    def hidden(price: Decimal) -> None: ...

    with pytest.raises(DefinitionError, match=r"(?s)activity 'x': .*'Decimal' is not defined.*TYPE_CHECKING"):
        Signature(hidden, "activity 'x'")


def test_types_that_json_knows_pass_the_check() -> None:
    functions: list[Callable[..., Any]] = [plain, rest, keyword_only, nothing, unannotated]
    for fn in functions:
        Signature(fn, "it").check(Converter())


class Connection: ...


def test_types_that_json_can_never_say_fail_the_check_by_parameter() -> None:
    def takes(db: list[Connection]) -> None: ...
    def gives() -> Connection: ...  # type: ignore[empty-body]  # as above
    def ambiguous(x: Order | dict[str, int]) -> None: ...
    def many(*connections: Connection) -> None: ...

    functions: list[tuple[Callable[..., Any], str]] = [
        (takes, "parameter `db`"),
        (gives, "the result"),
        (ambiguous, "parameter `x`"),
        (many, r"the \*rest parameter"),
    ]
    for fn, where in functions:
        with pytest.raises(DefinitionError, match=f"(?s)activity 'x': {where} is annotated .* cannot decode"):
            Signature(fn, "activity 'x'").check(Converter())
