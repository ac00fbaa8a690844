"""SIGINT and SIGTERM: every engine that runs in this process is told, and whoever had them before gets them back."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_told: list[asyncio.Event] = []
_before: dict[signal.Signals, Any] = {}


@contextmanager
def told_by_signals(event: asyncio.Event) -> Iterator[None]:
    """Inside, in the main thread, either signal sets `event`, with those of all others who are inside.

    A signal that comes when nobody is inside any more does what it did before the first came in: it ends a drain.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in () if _told else _SIGNALS:
        _before[number] = signal.getsignal(number)
        loop.add_signal_handler(number, _tell)
    _told.append(event)
    try:
        yield
    finally:
        _told.remove(event)
        for number in () if _told else _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, _before.pop(number) or signal.SIG_DFL)


def _tell() -> None:
    for event in _told:
        event.set()
