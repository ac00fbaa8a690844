"""Starts whose ids follow from a seed, so that chance in workflows is the same in every run of a test."""

import hashlib
import uuid
from typing import Any, TypeVar

from msgspec.structs import replace

from derecho.client import Client, _workflow_of
from derecho.handle import Handle
from derecho.invocation import Invocation
from derecho.starts import Start
from derecho.workflow import encode_input

R = TypeVar("R")


class _SeededStart(Start):
    """A start with a given run id."""

    def give_run_id(self, run_id: str) -> None:
        self._row = replace(self._row, run_id=run_id, chain_id=run_id)
        self._facts[0] = replace(self._facts[0], run_id=run_id, first_run_id=run_id)


async def start(client: Client, call: Invocation[R], id: str, run_id: str, signals: Any = ()) -> Handle[R]:
    """As `client.start`, under this run id."""
    definition = _workflow_of(call)
    values = encode_input(call, client.converter)
    begun = _SeededStart(client, definition.name, definition.version, definition.queue_name, values, id)
    begun.give_run_id(run_id)
    begun.add_signals(signals)
    await begun.commit("fail", "allow")
    return Handle(client, id, run_id, definition.signature, started=True)


def seeded_run_id(seed: int, number: int, at: int) -> str:
    """The run id of the `number`-th start of a test, shaped like a UUIDv7."""
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=10).digest()
    random = int.from_bytes(digest, "big")
    milliseconds = (at // 1_000) & (2**48 - 1)
    high, low = (random >> 62) & 0xFFF, random & (2**62 - 1)
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))
