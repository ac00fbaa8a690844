"""An error is stored as data and comes back as itself, and no stored byte makes code run."""

import json
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from derecho import ActivityCancelled, ActivityFailed, ActivityTimeout, DerechoError, NonRetryable
from derecho.journal.failures import (
    Failure,
    activity_error,
    cancelled_failure,
    rebuild,
    timeout_failure,
    to_failure,
)


class CardDeclined(Exception):
    """Plain: what most authors write."""


class OutOfStock(Exception):
    """With attributes that its arguments do not tell."""

    def __init__(self, sku: str, left: int) -> None:
        super().__init__(f"only {left} of {sku}")
        self.sku = sku
        self.left = left


class Picky(Exception):
    """Cannot live without its constructor."""

    def __init__(self, *, response: object) -> None:
        self._response = response

    def __str__(self) -> str:
        return f"response {self._response!r}" + str(self._missing)  # type: ignore[attr-defined]  # on purpose

    def __init_subclass__(cls) -> None:
        raise AssertionError("never")


class Dangerous(Exception):
    """Its constructor must never run when a stored failure is read."""

    calls = 0

    def __init__(self, *args: object) -> None:
        Dangerous.calls += 1
        super().__init__(*args)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Outer:
    class Nested(Exception):
        pass


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as exc:
        return exc


def round_trip(error: BaseException) -> Exception:
    return rebuild(msgspec.json.decode(msgspec.json.encode(to_failure(error)), type=Failure))


@pytest.mark.parametrize(
    "error",
    [
        CardDeclined("expired", 42),
        CardDeclined(),
        OutOfStock("kite", 3),
        Outer.Nested("inner"),
        KeyError("k"),
        OSError(2, "No such file"),
        SyntaxError("bad", ("file.py", 1, 2, "text", 1, 3)),
        ImportError("no such thing"),
        json.JSONDecodeError("bad", "{", 1),
        subprocess.CalledProcessError(2, "ls"),
        ValueError({"a": [1, None]}),
        TimeoutError("slow"),
        ActivityFailed("gone", activity="charge", attempts=3, type_name="x:Y"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_with_its_class_arguments_and_attributes(error: Exception) -> None:
    back = round_trip(raised(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert {k: v for k, v in vars(back).items() if k != "__notes__"} == vars(error)


def test_notes_and_the_chain_of_causes_come_back() -> None:
    error = raised(CardDeclined("no"), raised(OutOfStock("kite", 0), raised(ValueError("deep"))))
    error.add_note("while charging")
    back = round_trip(error)
    assert back.__notes__ == ["while charging"]
    assert [type(back.__cause__), type(back.__cause__.__cause__)] == [OutOfStock, ValueError]  # type: ignore[union-attr]  # both are there


def test_an_implicit_context_is_a_cause_unless_it_was_suppressed() -> None:
    def during(suppress: bool) -> Exception:
        try:
            try:
                raise ValueError("first")
            except ValueError:
                if suppress:
                    raise CardDeclined("second") from None
                raise CardDeclined("second")  # noqa: B904  (the implicit context is what is tested)
        except CardDeclined as exc:
            return exc

    assert isinstance(round_trip(during(suppress=False)).__cause__, ValueError)
    assert round_trip(during(suppress=True)).__cause__ is None


def test_the_traceback_is_kept_as_text() -> None:
    failure = to_failure(raised(CardDeclined("no")))
    assert "test_failures.py" in failure.traceback
    assert failure.traceback.rstrip().endswith("CardDeclined: no")


def test_reading_a_failure_runs_no_constructor_of_the_author() -> None:
    failure = to_failure(raised(Dangerous("boom")))
    before = Dangerous.calls
    assert isinstance(rebuild(failure), Dangerous)
    assert Dangerous.calls == before


@pytest.mark.parametrize(
    "path",
    [
        "this_module_is_not_loaded:Error",
        "os:system",
        "builtins:eval",
        "builtins:KeyboardInterrupt",
        "builtins:SystemExit",
        "builtins:object",
        "tests.journal.test_failures:Missing",
        "",
        ":",
        "no colon",
        "builtins:Exception.__init__",
        "sys:modules",
    ],
)
def test_a_stored_class_is_only_found_never_imported_and_must_be_an_exception(path: str) -> None:
    modules = set(sys.modules)
    back = rebuild(Failure(type=path, message="hello"))
    assert type(back) is DerechoError
    assert "hello" in str(back)
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    "failure",
    [
        Failure(type="builtins:OSError", message="m", args=[{"a": 1}, 2, 3, 4, 5, 6, 7]),
        Failure(type="builtins:UnicodeDecodeError", message="m", args=["too", "few"]),
        Failure(type="builtins:ValueError", message="m", attributes={"__class__": "x", "args": 3, "__dict__": {}}),
        Failure(type="builtins:ExceptionGroup", message="m", args=["group", []]),
    ],
    ids=lambda failure: failure.type,
)
def test_a_forged_failure_still_gives_an_exception_that_can_be_shown(failure: Failure) -> None:
    error = activity_error(failure, "charge", 1)
    assert isinstance(error, Exception)
    assert str(error)
    traceback.format_exception(error)


def test_a_class_that_needs_its_constructor_comes_back_as_ours_with_its_name() -> None:
    error = activity_error(to_failure(raised(Picky(response=object()))), "charge", 2)
    assert type(error) is ActivityFailed
    assert (error.type_name, error.activity, error.attempts) == (f"{__name__}:Picky", "charge", 2)


def test_a_class_that_would_come_back_without_its_text_comes_back_as_ours() -> None:
    error = activity_error(to_failure(raised(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"))), "read", 1)
    assert type(error) is ActivityFailed
    assert "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: bad byte" in str(error)


def test_an_error_without_text_is_stored_all_the_same() -> None:
    assert to_failure(raised(Unprintable())).message == "<str() of the error raised ValueError>"


def test_text_that_no_database_keeps_is_spelt_out() -> None:
    """Names of files have halves of surrogate pairs where they are not UTF-8."""
    error = raised(FileNotFoundError(2, "No such file", "caf\udce9.txt"), raised(ValueError("\ud800")))
    error.add_note("while reading caf\udce9")
    failure = to_failure(error)
    assert failure.message == "[Errno 2] No such file: 'caf\\udce9.txt'"
    assert failure.notes == ["while reading caf\\udce9"]
    assert failure.cause is not None
    assert failure.cause.message == "\\ud800"
    assert isinstance(rebuild(msgspec.json.decode(msgspec.json.encode(failure), type=Failure)), FileNotFoundError)


def test_endless_causes_and_endless_texts_are_cut() -> None:
    error: BaseException = ValueError("0")
    for number in range(50):
        error = raised(CardDeclined(str(number) * 5_000), error)
    failure = to_failure(error)
    depth, inner = 0, failure
    while inner.cause is not None:
        depth, inner = depth + 1, inner.cause
    assert depth == 10
    assert len(failure.message) <= 2_048
    assert len(failure.traceback) <= 8_193


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert to_failure(one).cause is not None


def test_what_a_workflow_sees_is_the_authors_own_error_caused_by_activity_failed() -> None:
    error = activity_error(to_failure(raised(OutOfStock("kite", 3), raised(ValueError("deep")))), "reserve", 4)
    assert isinstance(error, OutOfStock)
    assert error.left == 3
    cause = error.__cause__
    assert isinstance(cause, ActivityFailed)
    assert (cause.activity, cause.attempts, cause.type_name) == ("reserve", 4, f"{__name__}:OutOfStock")
    assert "OutOfStock: only 3 of kite" in str(cause)
    assert "test_failures.py" in cause.remote_traceback
    assert isinstance(cause.__cause__, ValueError)


def test_a_timeout_and_a_cancellation_keep_their_kind() -> None:
    timeout = activity_error(timeout_failure("start_to_close", "too slow", to_failure(CardDeclined("x"))), "a", 1)
    assert isinstance(timeout, ActivityTimeout)
    assert (timeout.kind, timeout.attempts) == ("start_to_close", 1)
    assert isinstance(timeout.__cause__, CardDeclined)
    assert isinstance(activity_error(cancelled_failure("stopped"), "a", 1), ActivityCancelled)


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda: raised(NonRetryable("stop")), NonRetryable),
        (lambda: raised(NonRetryable("stop"), CardDeclined("expired")), CardDeclined),
    ],
)
def test_non_retryable_shows_its_cause_or_itself(make: Callable[[], Any], seen: type[Exception]) -> None:
    failure = to_failure(make())
    assert not failure.retryable
    assert type(rebuild(failure)) is seen


def test_an_error_whose_class_is_not_loaded_here_is_caught_by_the_bases_that_are() -> None:
    """An activity imports its client when it runs, the workflow's `except` names what its own module imported."""
    client, late = types.ModuleType("shop_client"), types.ModuleType("shop_client.late")
    client.Unreachable = type("Unreachable", (ConnectionError,), {"__module__": client.__name__})  # type: ignore[attr-defined]
    late.NoRoute = type("NoRoute", (client.Unreachable,), {"__module__": late.__name__})  # type: ignore[attr-defined]
    failure = msgspec.json.decode(msgspec.json.encode(to_failure(late.NoRoute("no route"))), type=Failure)
    seen = []
    try:
        for loaded in ([client, late], [client], []):
            sys.modules.update({module.__name__: module for module in loaded})
            seen.append(rebuild(failure))
            for module in loaded:
                del sys.modules[module.__name__]
    finally:
        sys.modules.pop(client.__name__, None)
        sys.modules.pop(late.__name__, None)
    assert [type(error).__name__ for error in seen] == ["NoRoute", "Unreachable", "ConnectionError"]
    assert {str(error) for error in seen} == {"no route"}
