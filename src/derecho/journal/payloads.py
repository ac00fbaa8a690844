"""Values as bytes, and the codec that turns one into the other.

A payload remembers the name of its encoding, so that a history can be read after the codec was changed. JSON payloads
stay JSON in the journal, for people who read it with `sqlite3` or `psql`; others are base64.
"""

from typing import Any, Protocol, TypeVar

import msgspec

from derecho.errors import PayloadError
from derecho.journal.json_codec import JSONCodec

T = TypeVar("T")

DEFAULT_PAYLOAD_LIMIT = 4 * 1024 * 1024
"""Bytes that one encoded value may have."""


NO_JSON = msgspec.Raw()


class Payload(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One encoded value: `json` when the encoding is "json", else `data`."""

    json: msgspec.Raw = NO_JSON
    encoding: str = "json"
    data: bytes = b""

    def raw(self) -> bytes:
        return bytes(self.json) if self.encoding == "json" else self.data


class Codec(Protocol):
    """Bytes from values and back; called once per argument, result, signal, side effect and heartbeat.

    `encoding` is stored with every payload. A codec may also have `check(type)`, which raises TypeError for a type that
    it can never decode; it is asked when a definition is registered.
    """

    encoding: str

    def encode(self, value: Any, /) -> bytes: ...

    def decode(self, data: bytes, type: type[T], /) -> T: ...


class Converter:
    """The engine's codec with its limit: values to payloads and back, every error a `PayloadError`."""

    def __init__(self, codec: Codec | None = None, limit: int = DEFAULT_PAYLOAD_LIMIT) -> None:
        self.codec: Codec = codec or JSONCodec()
        self.limit = limit
        self._is_json = self.codec.encoding == "json"
        self._json: Codec = self.codec if self._is_json else JSONCodec()

    def encode(self, value: Any, what: str) -> Payload:
        """Encode one value; `what` names it in errors, such as "argument `order` of workflow `ship`"."""
        try:
            data = self.codec.encode(value)
        except Exception as exc:
            raise PayloadError(f"{what} cannot be encoded as {self.codec.encoding}: {exc}") from exc
        if len(data) > self.limit:
            raise PayloadError(
                f"{what} has {len(data):,} bytes, more than the limit of {self.limit:,}: "
                "store the value elsewhere and pass a reference to it, or raise the engine's payload limit"
            )
        if self._is_json:
            return Payload(msgspec.Raw(data))
        return Payload(NO_JSON, self.codec.encoding, data)

    def decode(self, payload: Payload, type: Any, what: str) -> Any:
        """Decode to `type`; raises PayloadError with the path inside the value that does not fit."""
        codec = self.codec
        if payload.encoding != codec.encoding:
            if payload.encoding != "json":
                raise PayloadError(
                    f"{what} is encoded as {payload.encoding!r}, but this engine's codec is {codec.encoding!r}: "
                    f"run it with a codec that reads {payload.encoding!r}"
                )
            codec = self._json
        try:
            return codec.decode(payload.raw(), type)
        except Exception as exc:
            raise PayloadError(f"{what} cannot be decoded as {type_name(type)}: {exc}") from exc

    def check_type(self, type: Any) -> None:
        """Raise TypeError for a type that this codec can never decode."""
        check = getattr(self.codec, "check", None)
        if check is not None:
            check(type)


def type_name(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
