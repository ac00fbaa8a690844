"""Names and ids: what every store keeps is taken, what some would not is refused with the reason."""

from collections.abc import Callable
from typing import Any

import pytest

from derecho import Context, DefinitionError, Signal, activity, workflow
from derecho.invocation import bad_name

KEPT = [
    "a",
    " ",
    " leading and trailing ",
    "order|42",
    "order/42?x=1&y=2#z",
    "../../etc/passwd",
    "'; DROP TABLE runs; --",
    '"quoted" \\ back',
    "<script>alert(1)</script>",
    "%s %d {0} ${HOME}",
    "%",
    "_",
    "null",
    "naïve",
    "e\u0301",
    "日本語",
    "\U0001f600",
    "\u202eright to left",
    "\u200b",
    "\u00a0",
    "\u2028",
    "\ufeff",
    "x" * 255,
    "é" * 127,
]
REFUSED = [
    ("", "is empty"),
    ("a\0b", "has control characters"),
    ("line\nbreak", "has control characters"),
    ("tab\t", "has control characters"),
    ("\x7f", "has control characters"),
    ("\ud800", "has a lone surrogate"),
    ("x" * 256, "has 256 bytes, more than 255"),
    ("é" * 128, "has 256 bytes, more than 255"),
    (5, "is a int, not a string"),
    (b"a", "is a bytes, not a string"),
    (None, "is a NoneType, not a string"),
]


def define_activity(name: Any) -> None:
    activity(name, start_to_close=1)(lambda: None)


def define_workflow(name: Any) -> None:
    async def f(ctx: Context) -> None: ...

    workflow(name, version=1)(f)


@pytest.mark.parametrize("name", KEPT, ids=ascii)
def test_a_name_that_every_store_keeps_is_taken(name: str) -> None:
    assert bad_name(name) is None
    assert Signal(name, int).name == name


@pytest.mark.parametrize(("name", "reason"), REFUSED, ids=ascii)
def test_other_names_are_refused_with_the_reason(name: Any, reason: str) -> None:
    assert reason in (bad_name(name) or "")
    with pytest.raises(DefinitionError, match=reason):
        Signal(name, int)


@pytest.mark.parametrize("define", [define_activity, define_workflow])
@pytest.mark.parametrize(("name", "reason"), [case for case in REFUSED if case[0]][:6], ids=ascii)
def test_definitions_are_as_strict(define: Callable[[Any], None], name: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        define(name)
