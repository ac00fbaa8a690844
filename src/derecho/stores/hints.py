"""Waking those who wait for a store: marks per topic, futures of any event loop.

A mark counts what happened; who waits with an old mark returns at once, so nothing is missed between a look and the
wait after it. All of it is a hint: correctness never depends on a wake-up, only promptness does.
"""

import asyncio
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import get_args

from derecho.clock import FOREVER
from derecho.journal.model import Topic

TOPICS: tuple[Topic, ...] = get_args(Topic)


class Hints:
    """Marks and waiters; every method may be called from any thread. `on_wait` is called when somebody starts to wait.

    `horizon` has, for timers and for timeouts, the next instant that the latest look reported. Whoever waits has been
    told one at least as early, or has been woken since: an instant behind it need not wake anybody.
    """

    def __init__(self, on_wait: Callable[[], None] = lambda: None) -> None:
        self._lock = threading.Lock()
        self._marks = dict.fromkeys(TOPICS, 0)
        self._waiting: dict[Topic, dict[asyncio.Future[None], asyncio.AbstractEventLoop]] = {t: {} for t in TOPICS}
        self._on_wait = on_wait
        self.horizon = {"timers": FOREVER, "timeouts": FOREVER}

    @property
    def waiters(self) -> int:
        return sum(len(futures) for futures in self._waiting.values())

    def seen(self, topic: Topic) -> int:
        return self._marks[topic]

    def bump(self, topics: Collection[Topic] = TOPICS) -> None:
        for topic in topics:
            with self._lock:
                self._marks[topic] += 1
                waiting = self._waiting[topic]
                if not waiting:
                    continue
                self._waiting[topic] = {}
            for future, loop in waiting.items():
                with suppress(RuntimeError):  # of a loop that was closed: nobody waits there any more
                    loop.call_soon_threadsafe(_wake, future)

    async def wait(self, topic: Topic, seen: int, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._marks[topic] != seen:
                return
            self._waiting[topic][future] = loop
        self._on_wait()
        timer = loop.call_later(max(0.0, timeout), _wake, future)
        try:
            await future
        finally:
            timer.cancel()
            with self._lock:
                self._waiting[topic].pop(future, None)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
