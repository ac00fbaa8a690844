"""While an engine runs, Python's cyclic collector looks more rarely; the pace before and after is the program's own."""

import gc
from collections.abc import Iterator

import pytest

from derecho import MemoryStore
from derecho.collector import PACE
from tests.support.world import engine_of

Pace = tuple[int, int, int]
USUAL: Pace = (700, 10, 10)


@pytest.fixture(autouse=True)
def pace() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


async def test_the_pace_is_slower_until_the_last_engine_has_stopped() -> None:
    async with engine_of(MemoryStore()):
        assert gc.get_threshold() == (PACE, *USUAL[1:])
        async with engine_of(MemoryStore()):
            assert gc.get_threshold() == (PACE, *USUAL[1:])
        assert gc.get_threshold() == (PACE, *USUAL[1:])
    assert gc.get_threshold() == USUAL


@pytest.mark.parametrize("chosen", [(PACE + 1, 5, 5), (0, 10, 10)], ids=["slower", "none"])
async def test_a_slower_pace_is_the_programs_choice(chosen: Pace) -> None:
    gc.set_threshold(*chosen)
    async with engine_of(MemoryStore()):
        assert gc.get_threshold() == chosen
    assert gc.get_threshold() == chosen


async def test_a_pace_that_was_set_meanwhile_stays() -> None:
    async with engine_of(MemoryStore()):
        gc.set_threshold(1_000, 11, 11)
    assert gc.get_threshold() == (1_000, 11, 11)


async def test_an_engine_that_cannot_start_leaves_the_pace_alone() -> None:
    def broken() -> int:
        raise OSError("no such thing")

    with pytest.raises(OSError, match="no such thing"):
        async with engine_of(MemoryStore(), resources={int: broken}):
            pass
    assert gc.get_threshold() == USUAL
