"""Workers that are killed: an activity costs one attempt for each death, and its rows are whole. (G18b, G19, G21)"""

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import derecho
from derecho import Client
from tests.activities import programs
from tests.support.world import eventually

GO_ON = derecho.Signal("go on", bool)


@contextmanager
def worker(database: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process on a database; killed at the end of the block."""
    command = [sys.executable, "-m", "tests.activities.programs", "work", str(database)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def test_an_activity_of_a_killed_worker_restarts_within_one_lease_without_any_timeout(tmp_path: Path) -> None:
    """Attempts are deaths plus one, and all have the same idempotency key."""
    database = tmp_path / "death.db"
    async with Client(f"sqlite:///{database}") as client:
        handle = await client.start(programs.hanging.bind(str(tmp_path)))
        for deaths in range(3):
            with worker(database):
                await eventually(lambda n=deaths: len(lines(tmp_path / "attempts")) > n)
        (tmp_path / "finish").touch()
        with worker(database):
            assert await handle.result(timeout=20) == 4
    attempts = [line.split() for line in lines(tmp_path / "attempts")]
    assert [int(number) for number, _ in attempts] == [1, 2, 3, 4]
    assert len({key for _, key in attempts}) == 1


async def test_progress_never_goes_back_over_kills(tmp_path: Path) -> None:
    database = tmp_path / "progress.db"
    async with Client(f"sqlite:///{database}") as client:
        handle = await client.start(programs.counting.bind(str(tmp_path), 2_000))

        async def progressed() -> bool:
            rows = (await client.store.pending(handle.run_id)).activities
            return any(digit in (rows[0].heartbeat or "") for digit in "123456789") if rows else False

        for deaths in range(3):
            with worker(database):
                await eventually(lambda n=deaths: len(lines(tmp_path / "begins")) > n)
                await eventually(progressed)
        (row,) = (await client.store.pending(handle.run_id)).activities
        await handle.terminate()
    begins = [int(line) for line in lines(tmp_path / "begins")]
    assert begins == sorted(begins)
    assert begins[-1] > 0, "what was acknowledged was found by the next attempt"
    assert row.attempt >= 3


async def test_an_activity_that_kills_its_worker_each_time_stops_by_its_policy(tmp_path: Path) -> None:
    database = tmp_path / "poison.db"
    async with Client(f"sqlite:///{database}") as client:
        handle = await client.start(programs.poisoned.bind())
        for _ in range(2):
            with worker(database) as process:
                assert await asyncio.to_thread(process.wait, 20) == 9
        with worker(database), pytest.raises(derecho.WorkflowFailed, match="died in attempt 2"):
            await handle.result(timeout=20)


async def test_bookings_equal_completions_whatever_is_killed_when(tmp_path: Path) -> None:
    """A counter table, workers killed at random moments: never a row without its outcome, nor the other way."""
    database, count = tmp_path / "bookings.db", 16
    async with Client(f"sqlite:///{database}") as client:
        await client.store.open()
        with sqlite3.connect(database) as books:
            books.execute("CREATE TABLE bookings (number INTEGER, by TEXT)")
        handles = await client.start_many([(str(n), programs.booking.bind(n)) for n in range(count)])
        chance, kills, closed = random.Random(7), 0, 0
        while closed < count and kills < 6:
            before = booked(books)

            async def goes_on(before: int = before) -> bool:
                await release_from_quarantine(handles)  # the next worker counts the death of the last one
                return booked(books) > before or booked(books) == 2 * count

            with worker(database):
                await eventually(goes_on)
                await asyncio.sleep(chance.random() * 0.1)
            kills += 1
            closed = len(await client.store.closed([handle.run_id for handle in handles]))
        with worker(database):
            for handle in handles:
                while (await handle.describe()).closed_at is None:
                    await release_from_quarantine(handles)
                    await asyncio.sleep(0.1)
                assert await handle.result() == int(handle.id)
        rows = sorted(books.execute("SELECT number, by FROM bookings").fetchall())
        books.close()
    assert rows == sorted((n, by) for n in range(count) for by in ("activity", "step"))
    assert kills >= 3


async def release_from_quarantine(handles: list[derecho.Handle[int]]) -> None:
    """A run that three workers died with waits for a person, who says by any signal that it may go on."""
    for handle in handles:
        if (await handle.describe()).status == "blocked":
            with suppress(derecho.WorkflowNotFound):  # it has just ended
                await handle.signal(GO_ON, True)


def booked(books: sqlite3.Connection) -> int:
    count: int = books.execute("SELECT count(*) FROM bookings").fetchone()[0]
    return count
