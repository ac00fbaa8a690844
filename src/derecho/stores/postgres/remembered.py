"""Rows as this process saw them last, so that a batch about them is written without a look at them.

They are guesses, out of date as soon as somebody else writes. `write` compares the revision of every row that a batch
was decided by, changed or not, and refuses the batch if one differs: a wrong guess costs a statement, and nothing else.
A revision is the xid of the transaction that wrote the row, which names it only within one history of the database.
So rows are kept for one epoch, and used on connections only that were there when they were seen: a server that may
forget what it acknowledged gives its xids out again when it has crashed, and a crash ends all connections.
"""

import threading
from collections.abc import Collection, Iterable

from derecho.journal.model import WorkerRow
from derecho.stores.memory.tables import Place
from derecho.stores.postgres.batch import Found, SeenActivity, SeenRun, Wanted
from derecho.stores.postgres.connections import Link

_MOST = 10_000
"""Runs, and activities, of which something is remembered; the oldest goes first."""

_LONG = 10_000
"""Characters of an activity's data with which it is too much to remember."""


class Remembered:
    """What is warm here: the rows of runs and activities that `workers`, those of this process, hold. For any thread.

    Others' would be out of date before they are needed, and each wrong guess costs a statement.
    """

    def __init__(self, workers: Collection[str]) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._epoch = 0
        self._runs: dict[str, tuple[int, SeenRun]] = {}  # with the moment before which it was not seen
        self._activities: dict[Place, tuple[int, SeenActivity]] = {}
        self._open: dict[str, str] = {}  # workflow id -> run id, of `_runs`

    def take(self, link: Link, wanted: Wanted, now: int) -> Found | None:
        """The rows that a batch is about, unless one of them is not known.

        Whatever becomes of the batch, they are forgotten until it has been written.
        """
        with self._lock:
            if link.epoch != self._epoch:
                self._epoch = link.epoch
                for table in (self._runs, self._activities, self._open):
                    table.clear()
            run_ids = wanted.runs | {self._open[name] for name in wanted.workflows if name in self._open}
            runs = [self._forget(run_id) for run_id in run_ids if run_id in self._runs]
            activities = [self._activities.pop(place) for place in wanted.activities if place in self._activities]
        if wanted.unusual or len(activities) < len(wanted.activities):
            return None
        if any(moment < link.born for moment, _ in (*runs, *activities)):
            return None
        known = {seen.run.run_id: seen for _, seen in runs}
        unused = wanted.workflows - {seen.run.workflow_id for seen in known.values()}
        if not (
            unused <= wanted.chains_of.keys()
            and all(run_id in known or run_id in wanted.chains for run_id in wanted.runs)
            # What is in the history already may be a repetition, and is to be compared.
            and all(task > known[run_id].run.tasks for run_id, task in wanted.tasks if run_id in known)
        ):
            return None
        workers = [WorkerRow(worker, "", 0, []) for worker in wanted.workers]  # `write` knows whether they are alive
        return Found(now, known.values(), [seen for _, seen in activities], workers, unused)

    def _forget(self, run_id: str) -> tuple[int, SeenRun]:
        known = self._runs.pop(run_id)
        self._open.pop(known[1].run.workflow_id, None)
        return known

    def keep(self, link: Link, runs: Iterable[SeenRun], activities: Iterable[SeenActivity]) -> None:
        """Remember committed rows, which were seen since `link` was taken."""
        with self._lock:
            if link.epoch != self._epoch:
                return
            for seen in runs:
                if seen.home in self._workers:
                    self._runs[seen.run.run_id] = link.taken, seen
                    self._open[seen.run.workflow_id] = seen.run.run_id
            for activity in activities:
                row = activity.row
                if row.worker in self._workers and len(row.data) + len(row.heartbeat or "") < _LONG:
                    self._activities[row.run_id, row.activity] = link.taken, activity
            while len(self._runs) > _MOST:
                self._forget(next(iter(self._runs)))
            while len(self._activities) > _MOST:
                del self._activities[next(iter(self._activities))]
