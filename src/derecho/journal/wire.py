"""Events as text, and the chain that ties a history together.

One row is one workflow task. Its digest covers the digest before it, its number, its time and its bytes; the run row
carries the newest digest. A row that was changed, lost, doubled or written on another time line breaks the chain and is
never replayed.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from derecho.errors import PayloadError, StoreError
from derecho.journal.events import AnyEvent, Fact
from derecho.journal.payloads import Payload

FORMAT = 1
"""Version of the journal's and the export's format; raised only when an old reader would go wrong."""

FIRST_DIGEST = ""

_encoder = msgspec.json.Encoder()
_events = msgspec.json.Decoder(list[AnyEvent])
_payload = msgspec.json.Decoder(Payload)
_fact: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Fact)


class HistoryRow(msgspec.Struct, frozen=True, gc=False):
    """One workflow task as stored. `first_event` is the id of its first event; `data` is a JSON array of events."""

    task: int
    first_event: int
    at: int
    data: str
    digest: str


def encode_events(events: Sequence[AnyEvent]) -> str:
    return _encode(events)


def decode_events(data: str) -> list[AnyEvent]:
    try:
        return _events.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise PayloadError(f"a recorded workflow task cannot be read: {exc}") from exc


def encode_struct(value: Any) -> str:
    """Any of our own structs (a fact for the inbox, an activity's command for its row) as JSON text."""
    return _encode(value)


def _encode(value: Any) -> str:
    try:
        return _encoder.encode(value).decode()
    except UnicodeEncodeError as exc:  # half of a surrogate pair: no database keeps it
        raise PayloadError(f"some text cannot be recorded: {exc}") from exc


def decode_fact(data: str) -> Fact:
    try:
        return _fact.decode(data)  # type: ignore[no-any-return]  # msgspec cannot type a union's decoder
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise PayloadError(f"a message in the inbox cannot be read: {exc}") from exc


def decode_payload(data: str) -> Payload:
    """A payload that stands alone in a column, such as a heartbeat's progress."""
    try:
        return _payload.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise PayloadError(f"a stored payload cannot be read: {exc}") from exc


def chain(previous: str, task: int, at: int, data: str) -> str:
    """The digest of a row: 128 bits in hex."""
    return blake2b(f"{previous}|{task}|{at}|{data}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def verify(rows: Iterable[HistoryRow], *, head: str | None = None, run_id: str = "") -> list[list[AnyEvent]]:
    """The events of each row; raises StoreError when rows are missing, changed, or do not end at `head`.

    Raises PayloadError for a row that cannot be read.
    """
    found: list[list[AnyEvent]] = []
    digest, events, task = FIRST_DIGEST, 0, 0
    for row in rows:
        task += 1
        if row.task != task or row.first_event != events + 1:
            raise StoreError(f"history of run {run_id} is damaged: task {task} is missing or out of place")
        digest = chain(digest, row.task, row.at, row.data)
        if row.digest != digest:
            raise StoreError(f"history of run {run_id} is damaged: task {task} is not what was written")
        found.append(decode_events(row.data))
        events += len(found[-1])
    if head is not None and digest != head:
        raise StoreError(f"history of run {run_id} is damaged: it ends at task {task}, not at its recorded head")
    return found
