"""Rows as this process saw them last, so that a batch about them is written without a look at them.

They are guesses, out of date as soon as somebody else writes. `write` compares the revision of every row that a batch
was decided by, changed or not, and refuses the batch if one differs: a wrong guess costs a statement, and nothing else.
A revision is the xid of the transaction that wrote the row, which names it only within one history of the database.
So rows are kept for one epoch, and used on connections only that were there when they were seen: a server that may
forget what it acknowledged gives its xids out again when it has crashed, and a crash ends all connections.
"""

import threading
from typing import Any

from derecho.journal.model import RunRow
from derecho.stores.memory.tables import Place
from derecho.stores.postgres.batch import Row, Wanted
from derecho.stores.postgres.connections import Link

_MOST = 10_000
"""Rows; the oldest goes first."""

_TASKS = RunRow.__struct_fields__.index("tasks")


class Remembered:
    """Rows of open runs and activities, as `load` returns them. For any thread.

    They are rows of what this process has warm. Others would be out of date before they are needed, at a price.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str | Place, tuple[int, int, Row]] = {}  # with epoch, and the moment behind which it was seen

    def take(self, link: Link, wanted: Wanted, now: int) -> dict[str, Any] | None:
        """What `load` would have returned, if all that is wanted is known; runs to be created need not be.

        Whatever becomes of the batch, it is forgotten here: only what was written is known again.
        """
        with self._lock:
            known = {key: self._rows.pop(key) for key in (*wanted.runs, *wanted.activities) if key in self._rows}
        runs = {key: row for key, (_, _, row) in known.items() if isinstance(key, str)}
        unused = wanted.workflows - {row[1] for row in runs.values()}
        if (
            wanted.unusual
            or any(epoch != link.epoch or moment < link.born for epoch, moment, _ in known.values())
            or not wanted.activities <= known.keys()
            or not wanted.runs <= runs.keys() | wanted.chains.keys()
            or not unused <= wanted.chains_of.keys()
            or any(run_id in runs and task <= runs[run_id][_TASKS] for run_id, task in wanted.tasks)  # repeated?
        ):
            return None
        workers: list[Row] = [(worker, "", 0, []) for worker in wanted.workers]  # do they live? `write` finds out
        found = {"now": now, "unused": unused, "runs": runs.values(), "workers": workers, "tasks": (), "keys": ()}
        return found | {"activities": [known[place][2] for place in wanted.activities], "timers": ()}

    def keep(self, link: Link, rows: dict[str | Place, Row]) -> None:
        """Remember committed rows, which were seen since `link` was taken."""
        with self._lock:
            for key, row in rows.items():
                self._rows[key] = link.epoch, link.taken, row
            while len(self._rows) > _MOST:
                del self._rows[next(iter(self._rows))]
