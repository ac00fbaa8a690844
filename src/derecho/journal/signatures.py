"""The typed face of a function: its parameters and result as payloads.

Read once, when the function is decorated. Values are checked where they are given (a wrong argument is refused at the
caller's line, not three days later in a worker), and what cannot come back equal without a type is refused with advice.
"""

import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

from derecho.errors import DefinitionError, PayloadError
from derecho.journal.json_codec import is_plain
from derecho.journal.payloads import Converter, Payload, type_name


class Untyped:
    """The "type" of what has no annotation."""


UNTYPED = Untyped
_SCALARS: frozenset[Any] = frozenset({str, int, bool, float, type(None)})


class Parameter(typing.NamedTuple):
    """`what` names it in errors: "argument `order` of workflow 'ship'"; made once, because values come often."""

    name: str
    type: Any
    keyword_only: bool
    required: bool
    what: str


class Signature:
    """Parameters and result of one workflow or activity; `what` names it in errors: "activity 'charge'"."""

    def __init__(
        self, fn: Callable[..., Any], what: str, *, skip: int = 0, localns: dict[str, Any] | None = None
    ) -> None:
        self.what = what
        self._result = f"the result of {what}"
        self._python = inspect.signature(fn)
        parameters = list(self._python.parameters.values())[skip:]
        self._bindable = self._python.replace(parameters=parameters)
        hints = read_hints(fn, what, localns)
        self.returns = hints.get("return", UNTYPED)
        self.rest: Any = None
        self.parameters: list[Parameter] = []
        for parameter in parameters:
            kind, annotation = parameter.kind, hints.get(parameter.name, UNTYPED)
            if kind is parameter.VAR_KEYWORD:
                raise DefinitionError(
                    f"{what}: **{parameter.name} cannot be recorded: name the parameters, or take one dataclass or dict"
                )
            if kind is parameter.VAR_POSITIONAL:
                self.rest = annotation
                continue
            required, name = parameter.default is parameter.empty, parameter.name
            keyword_only, said = kind is parameter.KEYWORD_ONLY, f"argument `{name}` of {what}"
            self.parameters.append(Parameter(name, annotation, keyword_only, required, said))
        self._positional = sum(not parameter.keyword_only for parameter in self.parameters)
        self._required = sum(parameter.required for parameter in self.parameters)
        self._simple = self._positional == len(self.parameters) and self.rest is None

    def check(self, converter: Converter) -> None:
        """Raise DefinitionError for a type that the codec can never decode."""
        for name, annotation in [(f"parameter `{p.name}`", p.type) for p in self.parameters] + [
            ("the *rest parameter", self.rest if self.rest is not None else UNTYPED),
            ("the result", self.returns),
        ]:
            if annotation is UNTYPED:
                continue
            try:
                converter.check_type(annotation)
            except TypeError as exc:
                raise DefinitionError(
                    f"{self.what}: {name} is annotated {type_name(annotation)}, which the "
                    f"{converter.codec.encoding} codec cannot decode: {exc}"
                ) from exc

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The arguments in order, as many as were given; raises TypeError like a call of the function would."""
        if not kwargs and self._simple and self._required <= len(args) <= self._positional:
            return list(args)
        try:
            bound = self._bindable.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{self.what}: {exc}") from None
        given = len(self.parameters)
        while given and self.parameters[given - 1].name not in bound.arguments and self.rest is None:
            given -= 1
        bound.apply_defaults()
        values = [bound.arguments[parameter.name] for parameter in self.parameters[:given]]
        return values + list(bound.args[self._positional :]) if self.rest is not None else values

    def encode(self, values: Sequence[Any], converter: Converter) -> tuple[Payload, ...]:
        payloads = [
            encode_value(value, parameter.type, converter, parameter.what)
            for parameter, value in zip(self.parameters, values, strict=False)
        ]
        for index, value in enumerate(values[len(self.parameters) :]):
            payloads.append(encode_value(value, self.rest, converter, f"argument `*{index}` of {self.what}"))
        return tuple(payloads)

    def decode(self, payloads: Sequence[Payload], converter: Converter) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for the function; raises PayloadError naming the parameter."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for parameter, payload in zip(self.parameters, payloads, strict=False):
            value = decode_value(payload, parameter.type, converter, parameter.what)
            if parameter.keyword_only:
                kwargs[parameter.name] = value
            else:
                args.append(value)
        known, recorded = len(self.parameters), len(payloads)
        if recorded > known and self.rest is None:
            raise PayloadError(f"{self.what} takes {known} arguments, but {recorded} were recorded")
        for index, payload in enumerate(payloads[known:], known):
            args.append(decode_value(payload, self.rest, converter, f"argument {index} of {self.what}"))
        for parameter in self.parameters[recorded:]:
            if parameter.required:
                raise PayloadError(f"{self.what} needs `{parameter.name}`, which was not recorded: give it a default")
        return args, kwargs

    def encode_result(self, value: Any, converter: Converter) -> Payload:
        return encode_value(value, self.returns, converter, self._result)

    def decode_result(self, payload: Payload, converter: Converter) -> Any:
        return decode_value(payload, self.returns, converter, self._result)


def encode_value(value: Any, annotation: Any, converter: Converter, what: str) -> Payload:
    """Encode and make sure that the value comes back; raises PayloadError saying what does not fit."""
    if annotation is UNTYPED:
        if not is_plain(value):
            raise PayloadError(
                f"{what} is a {type_name(type(value))} and has no annotation, so it would come back as something "
                "else: annotate its type (or pass type=…)"
            )
        return converter.encode(value, what)
    payload = converter.encode(value, what)
    if annotation is not Any and not (annotation in _SCALARS and type(value) is annotation):
        converter.decode(payload, annotation, what)
    return payload


def decode_value(payload: Payload, annotation: Any, converter: Converter, what: str) -> Any:
    return converter.decode(payload, Any if annotation is UNTYPED else annotation, what)


def read_hints(fn: Callable[..., Any], what: str, localns: dict[str, Any] | None) -> dict[str, Any]:
    """Annotations as types; `-> None` stays NoneType. Raises DefinitionError for a name that means nothing."""
    try:
        return typing.get_type_hints(fn, localns=localns, include_extras=True)
    except Exception as exc:
        raise DefinitionError(
            f"{what}: an annotation cannot be resolved: {exc}. Types must be importable where the function is "
            "defined, also those behind TYPE_CHECKING"
        ) from exc
