"""Ids that follow from what is recorded, so that every replay makes the same ones."""

import hashlib
import uuid


def derive_run_id(parent: str, number: int, at: int) -> str:
    """The run id of a parent's `number`-th child or successor: shaped like a UUIDv7, random bits from the parent's."""
    random = int.from_bytes(hashlib.blake2b(f"{parent}/{number}".encode(), digest_size=10).digest(), "big")
    milliseconds = (at // 1_000) & (2**48 - 1)
    high, low = (random >> 62) & 0xFFF, random & (2**62 - 1)
    return str(uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low))
