"""Random numbers that are the same on every replay, on every Python.

`random.Random` promises stable sequences only for `random()`, so the bits come from a generator of our own: SplitMix64,
seeded from the run.
"""

import hashlib
import random
from collections.abc import Callable
from typing import Any

_MASK = 0xFFFF_FFFF_FFFF_FFFF


def _anywhere() -> None:
    """Lets everybody draw."""


class ReplayRandom(random.Random):
    """A `random.Random` over SplitMix64; cannot be reseeded. Each draw calls `check` first."""

    def __new__(cls, seed: bytes, check: Callable[[], None] = _anywhere) -> "ReplayRandom":
        return super().__new__(cls)

    def __init__(self, seed: bytes, check: Callable[[], None] = _anywhere) -> None:
        self._check = check
        self._state = int.from_bytes(hashlib.blake2b(seed, digest_size=8).digest(), "big")
        self.gauss_next = None

    def _next(self) -> int:
        self._check()
        self._state = (self._state + 0x9E37_79B9_7F4A_7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
        return mixed ^ (mixed >> 31)

    def random(self) -> float:
        return (self._next() >> 11) * 2.0**-53

    def getrandbits(self, k: int, /) -> int:
        if k < 0:
            raise ValueError("number of bits must be non-negative")
        words = (k + 63) // 64
        value = 0
        for _ in range(words):
            value = value << 64 | self._next()
        return value >> (words * 64 - k)

    def seed(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("ctx.random is seeded from the run, so that every replay draws the same numbers")

    def getstate(self) -> Any:
        return self._state

    def setstate(self, state: Any) -> None:
        self._state = state
