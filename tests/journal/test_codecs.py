"""A payload remembers its encoding, so that a history stays readable when the codec changes."""

from typing import Any, TypeVar

import msgspec
import pytest

from derecho import PayloadError
from derecho.journal.payloads import Converter, Payload

T = TypeVar("T")


class Reversed:
    """JSON written backwards: obviously not JSON."""

    encoding = "reversed"

    def encode(self, value: Any, /) -> bytes:
        return msgspec.json.encode(value)[::-1]

    def decode(self, data: bytes, type: type[T], /) -> T:
        return msgspec.json.decode(data[::-1], type=type)


def written(payload: Payload) -> Payload:
    return msgspec.json.decode(msgspec.json.encode(payload), type=Payload)


def test_json_payloads_stand_in_the_journal_as_json() -> None:
    payload = Converter().encode({"a": [1]}, "it")
    assert msgspec.json.encode(payload) == b'{"json":{"a":[1]}}'


def test_other_payloads_carry_their_encodings_name() -> None:
    converter = Converter(Reversed())
    payload = written(converter.encode([1, 2], "it"))
    assert (payload.encoding, payload.data) == ("reversed", b"]2,1[")
    assert converter.decode(payload, list[int], "it") == [1, 2]


def test_what_was_written_before_the_codec_was_changed_is_still_read() -> None:
    assert Converter(Reversed()).decode(Converter().encode([1], "it"), list[int], "it") == [1]


def test_an_encoding_that_nobody_here_reads_is_named() -> None:
    payload = Converter(Reversed()).encode([1], "it")
    with pytest.raises(PayloadError, match=r"is encoded as 'reversed', but this engine's codec is 'json'"):
        Converter().decode(payload, list[int], "it")


def test_an_error_of_the_codec_names_the_value() -> None:
    with pytest.raises(PayloadError, match="signal 'go' cannot be decoded as int") as caught:
        Converter(Reversed()).decode(Payload(encoding="reversed", data=b"{"), int, "signal 'go'")
    assert isinstance(caught.value.__cause__, msgspec.DecodeError)


def test_the_null_payload_is_a_value_too() -> None:
    converter = Converter()
    assert converter.decode(written(converter.encode(None, "it")), type(None), "it") is None
