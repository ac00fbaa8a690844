"""A store that has long heard nothing stops looking, and is woken by what others write all the same."""

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from derecho import SQLiteStore
from derecho.stores.hints import Hints
from derecho.stores.sqlite import watch as watching
from derecho.stores.sqlite.alarm import Alarm
from derecho.stores.sqlite.connection import open_writer
from derecho.stores.sqlite.watch import Watch
from tests.support.world import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the alarm is Linux' inotify; elsewhere it is looked")

PATIENCE = 30.0


class Waited(Hints):
    """Somebody always waits."""

    waiters = 1


class Watched:
    """A watch over a file that two connections write to, on a clock that the test moves; somebody waits for it."""

    def __init__(self, path: str, clock: SimpleNamespace) -> None:
        self.hints = Waited()
        self.woken = threading.Semaphore(0)
        self.here, self.there = (open_writer(path, "full", create=True) for _ in range(2))
        self.watch = Watch(path, self.hints, self.woken.release)
        self.watch.begin(self.here)
        self._clock = clock
        self._bumps = self.hints.seen("runs")

    def poll(self) -> float | None:
        return self.watch.poll(self.here)

    def heard(self) -> bool:
        """Whether the hints have been told since they were last asked."""
        before, self._bumps = self._bumps, self.hints.seen("runs")
        return self._bumps != before

    def write(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'now'")

    def fall_asleep(self) -> None:
        """Let it be quiet for so long that nobody looks any more."""
        for _ in range(200):
            pause = self.poll()
            if pause is None:
                break
            self._clock.at += pause
        else:
            raise AssertionError("it goes on looking")
        assert not self.heard()


@contextmanager
def watching_over(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    clock = SimpleNamespace(at=1_000.0)
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: clock.at))
    it = Watched(str(path), clock)
    with closing(it.here), closing(it.there):
        yield it
    it.watch.alarm.close()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    with watching_over(tmp_path / "shop.db", monkeypatch) as it:
        yield it


def test_what_another_connection_writes_wakes_a_watch_that_no_longer_looks(watched: Watched) -> None:
    watched.fall_asleep()
    watched.write(watched.there)
    assert watched.woken.acquire(timeout=PATIENCE)
    assert watched.poll() == watching._SOON, "who has written will soon write again"
    assert watched.heard()


def test_a_file_behind_a_link_wakes_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log lies beside the file, not beside the link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "disk" / "shop.db")
    with watching_over(tmp_path / "link.db", monkeypatch) as watched:
        watched.fall_asleep()
        watched.write(watched.there)
        assert watched.woken.acquire(timeout=PATIENCE)
        watched.poll()
        assert watched.heard()


def test_a_write_whose_commit_comes_later_is_waited_for(watched: Watched) -> None:
    """The log is written before others can see the commit."""
    watched.fall_asleep()
    watched.there.execute("PRAGMA cache_size = 1")  # a transaction that outgrows it goes to the log before its end
    watched.there.execute("BEGIN")
    watched.there.execute("CREATE TABLE large AS SELECT zeroblob(1000000)")
    assert watched.woken.acquire(timeout=PATIENCE)
    assert watched.poll() == watching._SOON
    assert not watched.heard()
    watched.there.execute("COMMIT")
    assert watched.poll() == watching._SOON
    assert watched.heard()


def test_what_is_written_while_the_alarm_is_being_armed_is_seen_by_one_more_look(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = watched.watch.alarm.arm

    def late() -> bool:
        watched.write(watched.there)
        return arm()

    monkeypatch.setattr(watched.watch.alarm, "arm", late)
    watched._clock.at += 1_000
    assert watched.poll() == watching._SOON, "it has just begun to be waited for"
    watched._clock.at += 1_000
    assert watched.poll() == watching._COMMIT
    watched.poll()
    assert watched.heard()


def test_our_own_writes_do_not_make_us_look(watched: Watched) -> None:
    for _ in range(3):
        watched.fall_asleep()
        watched.write(watched.here)
        assert watched.woken.acquire(timeout=PATIENCE)
        assert watched.poll() == watching._LATER
        assert not watched.heard()


def test_a_look_of_those_who_wait_does_not_make_us_look(watched: Watched) -> None:
    """An idle engine looks every ten seconds; then nobody waits for an instant, with our own write or without."""
    for writes in (False, True, False):
        watched.fall_asleep()
        watched._clock.at += 10
        watched.hints.waiters = 0
        if writes:
            watched.write(watched.here)
            assert watched.woken.acquire(timeout=PATIENCE)
        watched.poll()
        watched.hints.waiters = 1
        assert watched.poll() != watching._SOON


def test_an_alarm_that_rings_late_for_our_own_write_does_not_make_us_look(watched: Watched) -> None:
    for _ in range(3):
        watched.fall_asleep()
        watched.write(watched.here)
        assert watched.woken.acquire(timeout=PATIENCE)
        watched.watch._has_rung = False  # its thread comes a moment later
        assert watched.poll() == watching._LATER
        watched._clock.at += 0.010
        watched.watch._rung()
        assert watched.woken.acquire(timeout=PATIENCE)
        assert (watched.poll() or 0.0) >= watching._LATER
        watched.write(watched.there)
        watched._clock.at += watching._LATER
        assert watched.poll() == watching._SOON
        assert watched.heard(), "what others wrote meanwhile is seen at the next look"
        watched._clock.at += 1_000


def test_where_nothing_can_ring_it_is_looked_for_ever(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched.watch.alarm, "arm", lambda: False)
    pauses = []
    for _ in range(200):
        pauses.append(watched.poll() or 0.0)
        watched._clock.at += pauses[-1]
    assert min(pauses) > 0.0
    assert pauses[-1] == watching._LATER
    watched.write(watched.there)
    assert watched.poll() == watching._SOON
    assert watched.heard()


def test_an_alarm_for_a_file_that_is_not_there_cannot_be_armed(tmp_path: Path) -> None:
    alarm = Alarm(str(tmp_path / "none"), lambda: None)
    assert not alarm.arm()
    alarm.close()


def test_an_alarm_that_is_closed_ends_its_thread(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    alarm = Alarm(str(tmp_path / "file"), lambda: None)
    before = set(threading.enumerate())
    assert alarm.arm()
    [thread] = set(threading.enumerate()) - before
    alarm.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()


async def sleeps(store: SQLiteStore) -> bool:
    """Nobody looks, and has not for a while."""
    for _ in range(30):
        if store._threads is None or not store._threads[0]._sleeping:
            return False
        await asyncio.sleep(0.001)
    return store._watch is not None and store._watch._is_armed


async def written(store: SQLiteStore) -> None:
    await store._write(lambda connection: connection.execute("UPDATE meta SET value = value + 1"))


@pytest.fixture
async def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SQLiteStore, SQLiteStore]]:
    """Two stores of one file, for which time passes fast; they leave no alarm behind."""
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: 100 * time.monotonic()))
    before = set(threading.enumerate())
    pair = SQLiteStore(tmp_path / "shop.db"), SQLiteStore(tmp_path / "shop.db")
    for store in pair:
        await store.open()
    yield pair
    for store in pair:
        await store.close()
    await eventually(lambda: not {item for item in threading.enumerate() if "alarm" in item.name} - before)


async def test_a_store_that_sleeps_is_woken_by_a_write_elsewhere(pair: tuple[SQLiteStore, SQLiteStore]) -> None:
    here, there = pair
    for _ in range(3):
        waiting = asyncio.create_task(here.wait("runs", here.seen("runs"), 3_600.0))
        await eventually(lambda: sleeps(here))
        await written(there)
        async with asyncio.timeout(PATIENCE):
            await waiting


async def test_a_store_that_was_closed_in_its_sleep_is_woken_when_it_is_open_again(
    pair: tuple[SQLiteStore, SQLiteStore],
) -> None:
    here, there = pair
    for turn in range(3):
        waiting = asyncio.create_task(here.wait("runs", here.seen("runs"), 3_600.0))
        await eventually(lambda: sleeps(here))
        await (written(there) if turn == 2 else here.close())
        async with asyncio.timeout(PATIENCE):
            await waiting
        await here.open()
