"""A history exported as JSON Lines comes back as it was, whatever the payloads hold."""

import pytest

from derecho import History
from derecho.history import RecordedTask

# str.splitlines() splits at each of these; JSON Lines knows only the newline.
LINE_BREAKS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\n"]


@pytest.mark.parametrize("line_break", LINE_BREAKS, ids=ascii)
def test_a_line_break_inside_a_payload_is_kept(line_break: str) -> None:
    started = {"type": "workflow_started", "input": [{"json": f"two{line_break}lines"}], "at": 5}
    history = History("order-1", "run-1", "order", [RecordedTask(1, 1, 5, [started])])
    assert History.loads(history.dumps()).tasks == history.tasks


def test_windows_line_ends_and_blank_lines_are_read() -> None:
    history = History("order-1", "run-1", "order", [RecordedTask(1, 1, 5, [{"type": "workflow_started", "at": 5}])])
    assert History.loads(history.dumps().replace("\n", "\r\n\r\n")).tasks == history.tasks
