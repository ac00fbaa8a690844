"""The default codec: strict JSON by msgspec, guided by annotations.

Takes everything that msgspec takes (dataclasses, Structs, TypedDicts, NamedTuples, attrs, enums, dates, Decimal, UUID,
bytes, unions, generics) and, by hooks, pydantic models (when pydantic is installed), paths and IP addresses.
Infinite and NaN floats are refused, because JSON has no word for them and msgspec would write null.
"""

import ipaddress
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

_BY_STRING: tuple[type, ...] = (
    pathlib.PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)
"""Types whose `str()` is their JSON and whose constructor reads it back."""


class JSONCodec:
    """JSON by msgspec; `encoding` is "json"."""

    encoding = "json"

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=_to_plain).encode
        self._decoders: dict[Any, Callable[[bytes], Any]] = {}

    def encode(self, value: Any) -> bytes:
        data = self._encode(value)
        if b"null" in data:
            _refuse_non_finite(value, "$")
        return data

    def decode(self, data: bytes, type: type[T]) -> T:
        try:
            decoder = self._decoders[type]
        except KeyError:
            decoder = self._decoders[type] = msgspec.json.Decoder(type, dec_hook=_from_plain).decode
        except TypeError:  # an unhashable form of annotation
            decoder = msgspec.json.Decoder(type, dec_hook=_from_plain).decode
        value: T = decoder(data)
        return value

    def check(self, type: Any) -> None:
        """Raise TypeError for a type that can never be decoded, saying which part of it."""
        for custom in _custom_types(msgspec.inspect.type_info(type)):
            if not (_is_pydantic(custom) or (isinstance(custom, builtin_type) and issubclass(custom, _BY_STRING))):
                raise TypeError(
                    f"{custom!r} has no JSON form: use a dataclass, msgspec.Struct, TypedDict or pydantic model"
                )
        msgspec.json.Decoder(type, dec_hook=_from_plain)


builtin_type = type

_PLAIN = frozenset({str, int, float, bool, type(None)})


def is_plain(value: Any) -> bool:
    """Whether JSON gives back an equal value without being told the type: str, int, float, bool, None, list, dict."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is list:
        return all(is_plain(item) for item in value)
    if kind is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return False


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "__get_pydantic_core_schema__") and hasattr(kind, "model_validate")


def _to_plain(value: Any) -> Any:
    if _is_pydantic(type(value)):
        return value.model_dump(mode="json")
    if isinstance(value, _BY_STRING):
        return str(value)
    raise NotImplementedError(f"a {type(value).__module__}.{type(value).__qualname__} has no JSON form")


def _from_plain(kind: Any, value: Any) -> Any:
    if _is_pydantic(kind):
        return kind.model_validate(value)
    if isinstance(kind, type) and issubclass(kind, _BY_STRING):
        if not isinstance(value, str):
            raise ValueError(f"expected a string for {kind.__name__}")
        return cast(Any, kind)(value)
    raise NotImplementedError(f"{kind!r} has no JSON form")


def _custom_types(info: Any) -> list[Any]:
    """All types in a msgspec type description that only a hook can decode."""
    found: list[Any] = []
    seen: set[int] = set()
    waiting = [info]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, msgspec.inspect.CustomType):
            found.append(item.cls)
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, (msgspec.inspect.Type, msgspec.inspect.Field)):
            waiting.extend(getattr(item, name) for name in item.__struct_fields__)
    return found


def _refuse_non_finite(value: Any, path: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} at `{path}` has no JSON form")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_non_finite(key, f"{path}.<key>")
            _refuse_non_finite(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}[{index}]")
    elif isinstance(value, (str, bytes, bytearray, int)) or value is None:
        return
    elif _is_pydantic(type(value)):
        _refuse_non_finite(value.model_dump(), path)
    else:
        names = ("__struct_fields__", "__dataclass_fields__", "__attrs_attrs__")
        fields: Iterable[Any] = next((getattr(value, name) for name in names if hasattr(value, name)), ())
        for field in fields:
            name = getattr(field, "name", field)
            _refuse_non_finite(getattr(value, name, None), f"{path}.{name}")
