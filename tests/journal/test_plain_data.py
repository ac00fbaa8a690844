"""What is recorded is plain data: no cycles, so nothing for the garbage collector to look for.

A warm engine holds hundreds of thousands of these; looking through them was a fifth of its CPU time.
"""

from typing import get_args

import msgspec
import pytest

from derecho.journal import changes, events, model, payloads, wire

ROWS = [item for item in vars(model).values() if isinstance(item, type) and issubclass(item, msgspec.Struct)]


@pytest.mark.parametrize(
    "kind",
    [*get_args(events.AnyEvent), *get_args(changes.Change), *ROWS, payloads.Payload, wire.HistoryRow, changes.Receipt],
    ids=lambda kind: kind.__name__,
)
def test_the_garbage_collector_does_not_look_at(kind: type[msgspec.Struct]) -> None:
    assert not kind.__struct_config__.gc, f"class {kind.__name__}(…, gc=False)"
