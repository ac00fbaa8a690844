"""Errors as data, and back.

A failure keeps what an exception says (class, arguments, attributes, notes, cause, traceback as text), not the object.
Rebuilding looks a class up among the modules that are already loaded; nothing is imported by name and no constructor
of the author's runs, so stored bytes cannot make code run. Both the first execution and every replay see the rebuilt
exception. Where its class is not loaded its nearest base that is takes its place, so that `except`, which can only
name what is loaded, catches the same in every process.
"""

import sys
import traceback
from typing import Any, Literal

import msgspec

from derecho.errors import ActivityCancelled, ActivityFailed, ActivityTimeout, DerechoError, NonRetryable, TimeoutKind

_MAX_MESSAGE = 2_048
_MAX_TRACEBACK = 8_192
_MAX_CAUSES = 10

Kind = Literal["error", "timeout", "cancelled"]


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An exception as stored. `type` is "module:qualname"; `args` and `attributes` hold only what JSON can say.

    `bases`: the classes between it and `Exception`, nearest first; none for Python's own and ours, always there.
    """

    type: str
    message: str
    args: list[Any] | None = None
    attributes: dict[str, Any] = {}
    notes: list[str] = []
    traceback: str = ""
    cause: "Failure | None" = None
    retryable: bool = True
    kind: Kind = "error"
    timeout: TimeoutKind | None = None
    group: "list[Failure]" = []
    bases: tuple[str, ...] = ()


def type_path(cls: type) -> str:
    """ "module:qualname" of a class; a script's own classes get their module's real name where it has one."""
    module = cls.__module__
    if module == "__main__":
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        if spec is not None and spec.name:
            module = spec.name
    return f"{module}:{cls.__qualname__}"


def to_failure(error: BaseException, *, retryable: bool = True, depth: int = 0) -> Failure:
    """Describe an exception. A `NonRetryable` with a cause is described as that cause, not to be retried."""
    if isinstance(error, NonRetryable):
        retryable = False
        if isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, ActivityFailed):
            return to_failure(error.__cause__, retryable=False, depth=depth)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return Failure(
        type=type_path(type(error)),
        message=_storable(_text(error)[:_MAX_MESSAGE]),
        args=_plain_args(error),
        attributes=_plain_attributes(error),
        notes=[_storable(str(note)[:_MAX_MESSAGE]) for note in getattr(error, "__notes__", [])],
        traceback=_traceback(error),
        cause=to_failure(cause, depth=depth + 1) if cause is not None and depth < _MAX_CAUSES else None,
        retryable=retryable,
        group=_members(error, depth),
        bases=_bases(type(error)),
    )


def _bases(cls: type[BaseException]) -> tuple[str, ...]:
    if cls.__module__ in ("builtins", "derecho.errors"):
        return ()
    return tuple(type_path(base) for base in cls.__mro__[1:] if base not in (Exception, BaseException, object))


def _members(error: BaseException, depth: int) -> list[Failure]:
    """The errors in an exception group."""
    if not isinstance(error, BaseExceptionGroup) or depth >= _MAX_CAUSES:
        return []
    return [to_failure(inner, depth=depth + 1) for inner in error.exceptions[:_MAX_CAUSES]]


def timeout_failure(kind: TimeoutKind, message: str, cause: Failure | None = None) -> Failure:
    final = kind in ("schedule_to_start", "schedule_to_close")
    return Failure(
        type="derecho.errors:ActivityTimeout",
        message=message,
        cause=cause,
        retryable=not final,
        kind="timeout",
        timeout=kind,
    )


def cancelled_failure(message: str) -> Failure:
    return Failure(type="derecho.errors:ActivityCancelled", message=message, retryable=False, kind="cancelled")


def activity_error(failure: Failure, activity: str, attempts: int) -> Exception:
    """What the workflow sees: the author's class with `ActivityFailed` as cause, or an `ActivityFailed` of its kind."""
    cause = rebuild(failure.cause) if failure.cause is not None else None
    if failure.kind == "timeout":
        error: Exception = ActivityTimeout(
            failure.message,
            kind=failure.timeout or "start_to_close",
            activity=activity,
            attempts=attempts,
            type_name=failure.type,
            remote_traceback=failure.traceback,
        )
        error.__cause__ = cause
        return error
    cls = ActivityCancelled if failure.kind == "cancelled" else ActivityFailed
    outer = cls(
        f"activity {activity!r} failed after {attempts} attempt{'s' if attempts != 1 else ''}: "
        f"{short_type(failure.type)}: {failure.message}",
        activity=activity,
        attempts=attempts,
        type_name=failure.type,
        remote_traceback=failure.traceback,
    )
    if cls is ActivityCancelled:
        return outer
    return rebuild_with(failure, outer)


def rebuild_with(failure: Failure, outer: Exception) -> Exception:
    """The author's own exception with `outer` as its cause, or `outer` itself when its class is unknown here."""
    outer.__cause__ = rebuild(failure.cause) if failure.cause is not None else None
    own = _rebuild_own(failure)
    if own is None:
        return outer
    own.__cause__ = outer
    return own


def rebuild(failure: Failure, depth: int = 0) -> Exception:
    """The exception itself where its class is loaded here, else a `DerechoError` that names it."""
    error = _rebuild_own(failure) or DerechoError(f"{short_type(failure.type)}: {failure.message}")
    if failure.cause is not None and depth < _MAX_CAUSES:
        error.__cause__ = rebuild(failure.cause, depth + 1)
    return error


def short_type(path: str) -> str:
    return path.rpartition(":")[2]


def _rebuild_own(failure: Failure) -> Exception | None:
    found = (_find_class(path) for path in (failure.type, *failure.bases))
    cls = next((cls for cls in found if cls is not None), None)
    return None if cls is None else _rebuild_as(cls, failure)


def _rebuild_as(cls: type[Exception], failure: Failure) -> Exception | None:
    if failure.group:
        # "2 orders failed (2 sub-exceptions)": str() of a group counts its members
        return ExceptionGroup(failure.message.rpartition(" (")[0], [rebuild(inner) for inner in failure.group])
    args = tuple(failure.args) if failure.args is not None else (failure.message,)
    try:
        # Python's own classes keep part of their state out of reach of all but their constructors.
        error = cls(*args) if cls.__module__ == "builtins" else cls.__new__(cls, *args)
        error.args = args
        for name, value in failure.attributes.items():
            error.__dict__[name] = value
        if failure.message and not str(error):
            return None
    except Exception:
        return None  # a class that cannot live without its constructor: the caller falls back to our own
    for note in failure.notes:
        error.add_note(note)
    return error


def _find_class(path: str) -> type[Exception] | None:
    module_name, _, qualname = path.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        main = sys.modules.get("__main__")
        spec = getattr(main, "__spec__", None)
        if spec is None or spec.name != module_name:
            return None
        module = main
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as exc:
        return f"<str() of the error raised {type(exc).__name__}>"


def _plain_args(error: BaseException) -> list[Any] | None:
    plain = [_plain(arg) for arg in error.args]
    return None if any(item is _UNPLAIN for item in plain) else plain


def _plain_attributes(error: BaseException) -> dict[str, Any]:
    plain = {name: _plain(value) for name, value in vars(error).items() if not name.startswith("__")}
    return {name: value for name, value in plain.items() if value is not _UNPLAIN}


_UNPLAIN = object()


def _plain(value: Any) -> Any:
    """A value as JSON gives it back, or `_UNPLAIN`."""
    try:
        data = msgspec.json.encode(value)
    except Exception:
        return _UNPLAIN
    return msgspec.json.decode(data) if len(data) <= _MAX_MESSAGE else _UNPLAIN


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False))
    except Exception:
        return ""
    return _storable(text if len(text) <= _MAX_TRACEBACK else "…" + text[-_MAX_TRACEBACK:])


def _storable(text: str) -> str:
    """Text with each half of a surrogate pair (in the name of a file, say) spelt out, because no database keeps it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
