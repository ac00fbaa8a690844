"""What the reference workflows do outside: each activity takes `way`, which says how it ends.

"" works, "slow" works after a moment, "flaky" fails at its first attempt, "broken" fails for good,
"stuck" does not end until it is cancelled.
"""

import asyncio

import derecho
from derecho import ActivityDefinition, NonRetryable, RetryPolicy

SOON = RetryPolicy(initial_interval=0.01, max_attempts=3)
ROWS = 8


class OutOfStock(Exception):
    """The author's own error."""


async def end(what: str, way: str) -> str:
    if way == "slow":
        await asyncio.sleep(0.01)
    if way == "flaky" and derecho.current_activity().attempt == 1:
        raise ConnectionError(f"{what}: the line is down")
    if way == "stuck":
        await asyncio.Event().wait()
    if way == "broken":
        raise NonRetryable(f"{what} cannot be done") from OutOfStock(what)
    return what


@derecho.activity(retry=SOON)
async def reserve(item: str, way: str = "") -> str:
    return await end(f"reserved {item}", way)


@derecho.activity(retry=SOON)
async def charge(cents: int, key: str, way: str = "") -> str:
    return await end(f"charged {cents}", way)


@derecho.activity(retry=SOON)
async def ship(item: str, way: str = "") -> str:
    return await end(f"shipped {item}", way)


@derecho.activity(retry=SOON)
async def undo(what: str, way: str = "") -> str:
    return await end(f"undid {what}", way)


@derecho.activity(retry=SOON)
async def notify(text: str, way: str = "") -> None:
    await end(text, way)


@derecho.activity(retry=SOON)
def square(n: int) -> int:
    """On a thread."""
    return n * n


@derecho.activity(retry=SOON)
async def poll(cursor: int, way: str = "") -> str:
    return await end("abcdefgh"[cursor % 8], way)


@derecho.activity(retry=RetryPolicy(initial_interval=0.01), heartbeat_timeout=3600)
async def import_rows(fail_at: list[int]) -> int:
    """Goes on where it was; dies at these rows, each time once."""
    act = derecho.current_activity()
    first = (act.last_heartbeat(int) or 0) if act.attempt > 1 else 0
    for row in range(first, ROWS):
        if row in fail_at[act.attempt - 1 :]:
            raise ConnectionError(f"the line is down at row {row}")
        act.heartbeat(row + 1)
    return ROWS - first


@derecho.activity(transactional=True, retry=SOON)
async def book(article: str, pieces: int) -> int:
    """Rows of our own and the outcome are one commit."""
    connection = derecho.current_activity().transaction
    await connection.execute("CREATE TABLE IF NOT EXISTS bookings (article TEXT, pieces INTEGER)")
    await connection.execute("INSERT INTO bookings VALUES (?, ?)", (article, pieces))
    [[count]] = await connection.execute("SELECT sum(pieces) FROM bookings WHERE article = ?", (article,))
    return int(count)


ACTIVITIES: list[ActivityDefinition] = [reserve, charge, ship, undo, notify, square, poll, import_rows, book]
