"""Group commit: everything that a process writes goes through here, as one transaction after another.

While one commit is under way the next transitions gather; they go out as soon as it is back. No delay is added when it
is quiet, batches are large under load. The rules: a conflicting transition is refused alone (the store sees to that);
one that the store cannot take at all is found and refused alone; a caller that goes away does not take the batch with
it; while the store is away, and after an unknown outcome, everything is sent again, which is harmless because every
change has a key or a claim.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from derecho import outages
from derecho.errors import StoreError, StoreUnavailable
from derecho.journal.changes import Receipt, Result, Transition, is_fresh
from derecho.journal.store import Store

log = logging.getLogger("derecho.committer")

MAX_BATCH = 1_000

Done = Callable[[Result | StoreError], None]


class Item:
    """A transition on its way.

    `give_up_at`: loop time after which a client is told that the store does not answer; None: never, the engine's own
    work is repeated for ever. `uncertain`: it was sent once without an answer.
    """

    __slots__ = ("done", "give_up_at", "is_told", "transition", "uncertain")

    def __init__(self, transition: Transition, done: Done, give_up_at: float | None) -> None:
        self.transition = transition
        self.done = done
        self.give_up_at = give_up_at
        self.uncertain = self.is_told = False


class Committer:
    """One per process and store. Callbacks run on the loop, after the commit is known, in the order of submission.

    `on_uncertain` gets each transition that turned out to have been applied (or to conflict) only after an answer to it
    had been lost: what its first sending claimed is nobody's knowledge.
    """

    def __init__(self, store: Store, on_uncertain: Callable[[Transition, Result], None] | None = None) -> None:
        self.store = store
        self.outage = outages.Outage(store.url)
        self._on_uncertain = on_uncertain
        self.commits = 0
        self.transitions = 0
        self._queue: deque[Item] = deque()
        self._under_way: list[Item] = []
        self._task: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def submit(self, transition: Transition, done: Done, patience: float | None = None) -> None:
        """Commit until the store takes or refuses it, then `done` gets the result.

        With `patience`, for a client: `done` gets a StoreError when repeating it for so many seconds did not help.
        """
        self._put(Item(transition, done, None if patience is None else asyncio.get_running_loop().time() + patience))

    async def commit(self, transition: Transition, heard: Done | None = None) -> Result:
        """Commit for a client: raises StoreError, StoreUnavailable after 30 s in which it was sent again and again.

        `heard` gets what is known of it in the end also when the caller has gone away meanwhile.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def done(result: Result | StoreError) -> None:
            try:
                if heard is not None:
                    heard(result)
            finally:
                resolve(future, result)

        self.submit(transition, done, outages.PATIENCE)
        return await future

    async def flush(self) -> None:
        """Wait until everything submitted so far is known."""
        await self._idle.wait()

    async def close(self, timeout: float) -> None:
        """Finish what was accepted; give up after `timeout` seconds (the work is then found again by its lease)."""
        try:
            await asyncio.wait_for(self.flush(), timeout)
        except TimeoutError:
            if left := len(self._under_way) + len(self._queue):
                log.error("the store did not take %d transitions in %.1f s: left to recovery", left, timeout)
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    @property
    def is_closed(self) -> bool:
        return self._closed

    def _put(self, item: Item) -> None:
        if self._closed:
            raise StoreError("this engine or client is closed")
        self._queue.append(item)
        if self._task is None:
            self._idle.clear()
            self._task = asyncio.get_running_loop().create_task(self._drain(), name="derecho-committer")

    async def _drain(self) -> None:
        try:
            while self._queue:
                self._under_way = batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
                await self._commit(batch)
        except asyncio.CancelledError:
            for item in (*self._under_way, *self._queue):
                if item.give_up_at is not None:
                    _tell(item, StoreUnavailable("closed before the store had answered", outcome="unknown"))
            raise
        finally:
            self._task = None
            self._under_way = []
            self._idle.set()

    async def _commit(self, batch: list[Item]) -> None:
        pause = outages.pauses()
        while batch:
            try:
                results = await self.store.commit([item.transition for item in batch])
            except StoreUnavailable as exc:
                self.outage.began("commit", exc)
                for item in batch:
                    item.uncertain = item.uncertain or exc.outcome == "unknown"
                batch = self._patient(batch, exc)
                waiting, self._queue = self._queue, deque()  # whoever is told may submit something
                self._queue.extendleft(reversed(self._patient(waiting, exc)))
                if batch:
                    await asyncio.sleep(next(pause))
            except Exception as exc:
                if len(batch) > 1:
                    for item in batch:
                        await self._commit([item])
                else:
                    error = exc if isinstance(exc, StoreError) else StoreError(f"the store refused a commit: {exc!r}")
                    _tell(batch[0], error)
                return
            else:
                self.outage.over("commit")
                self.commits += 1
                self.transitions += len(batch)
                for item, result in zip(batch, results, strict=True):
                    _tell(item, result)
                    in_doubt = item.uncertain or (isinstance(result, Receipt) and result.repeated)
                    if in_doubt and self._on_uncertain is not None and not is_fresh(result):
                        self._on_uncertain(item.transition, result)
                return

    def _patient(self, items: Iterable[Item], error: StoreUnavailable) -> list[Item]:
        """Those who go on waiting; clients who have waited long enough are told what is known."""
        now = asyncio.get_running_loop().time()
        rest = []
        for item in items:
            if item.give_up_at is None or now < item.give_up_at:
                rest.append(item)
            else:  # that a later sending did nothing says nothing of the first
                _tell(item, outages.given_up(error, "unknown" if item.uncertain else "not_applied"))
        return rest


def resolve(future: "asyncio.Future[Result]", result: Result | Exception) -> None:
    """Hand a result to who waits for it, unless that was cancelled."""
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _tell(item: Item, result: Result | StoreError) -> None:
    if item.is_told:  # that nobody waits for it any more
        return
    item.is_told = True
    try:
        item.done(result)
    except Exception:
        log.exception("a callback of a commit failed; the commit itself stands")
