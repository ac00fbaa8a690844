"""What transitions are about, and what they change: rows in, rows out.

The rows that a batch is about are loaded into the memory store's tables, the memory store's functions decide, and what
differs afterwards is written. So there is one meaning of each change, and the stores cannot disagree.
"""

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar

from msgspec.structs import astuple

from derecho.journal import changes as ch
from derecho.journal.model import ActivityRow, RunRow, TimerRow, WorkerRow
from derecho.journal.wire import HistoryRow
from derecho.stores.memory.tables import Place, Tables

V = TypeVar("V")
Row: TypeAlias = tuple[Any, ...]

_LONG = 10_000
"""Characters with which an activity is too much to remember."""

RUN, ACTIVITY = len(RunRow.__struct_fields__), len(ActivityRow.__struct_fields__)


_RUN: Callable[[RunRow], Row] = attrgetter(
    *("run_id", "workflow_id", "workflow_type", "queue", "status", "version", "chain_id", "started_at", "closed_at"),
    *("tasks", "events", "digest", "inbox_last", "parent_run_id", "parent_child", "close_policy", "outcome"),
)
_LIVE: Callable[[RunRow], Row] = attrgetter(
    *("run_id", "kind", "tasks", "events", "digest", "inbox_last", "inbox_read", "ready_at", "claim", "worker"),
    *("crashes", "blocked_reason", "blocked_count", "terminate"),
)
"""What `runs` has of a run behind its number, and what `live` has before its home."""


class Wanted:
    """The rows that a batch is about."""

    def __init__(self, transitions: Sequence[ch.Transition]) -> None:
        self.runs: set[str] = set()
        self.workflows: set[str] = set()  # whose newest run is wanted
        self.followed: set[str] = set()  # runs of whose workflow ids the newest is wanted
        self.workers: set[str] = set()
        self.leaving: set[str] = set()
        self.tasks: set[Place] = set()
        self.activities: set[Place] = set()
        self.timers: set[Place] = set()
        self.run_keys: set[tuple[str, str]] = set()
        self.workflow_keys: set[tuple[str, str]] = set()
        self.chains: dict[str, str] = {}  # of runs that the batch creates, by run id
        self.born: dict[str, str | None] = {}  # the workers that begin them
        self.chains_of: dict[str, set[str]] = {}  # the same by workflow id
        kinds = set()
        for transition in transitions:
            for change in transition:
                kinds.add(type(change))
                self._add(change)
        self.tangled = ch.ForgetRun in kinds and len(kinds) > 1  # what a run was and what takes its place would mix
        others = self.followed or self.leaving or self.timers or self.run_keys or self.workflow_keys
        self.unusual = bool(others) or ch.RenewWorker in kinds  # it is about rows that are not remembered

    def _add(self, change: ch.Change) -> None:
        match change:
            case ch.Advance(run_id=run_id, row=row):
                self._claimed_by(change.worker)
                self.runs.add(run_id)
                self.tasks.add((run_id, row.task))
            case ch.FinishActivity() | ch.RetryActivity() | ch.Heartbeat():
                self.activities.add((change.run_id, change.activity))
            case ch.ScheduleActivity(row=activity):
                self._claimed_by(activity.worker)
            case ch.Deliver():
                self._deliver(change)
            case ch.CreateRun(row=run):
                self.runs.add(run.run_id)
                self.workflows.add(run.workflow_id)
                self.chains[run.run_id] = run.chain_id
                self.born[run.run_id] = run.worker
                self.chains_of.setdefault(run.workflow_id, set()).add(run.chain_id)
                self._claimed_by(run.worker)
                for answer in (change.refusal, change.acceptance):
                    if answer is not None:
                        self._deliver(answer)
            case ch.BlockRun() | ch.ReleaseRun() | ch.ForgetRun():
                self.runs.add(change.run_id)
            case ch.RequestTerminate(run_id=run_id):
                self.runs.add(run_id)
                self.followed.add(run_id)
            case ch.CancelActivity(message=message):
                self.activities.add((change.run_id, change.activity))
                if message is not None:
                    self._deliver(ch.Deliver(message, run_id=change.run_id))
            case ch.DropTimer():
                self.timers.add((change.run_id, change.timer))
            case ch.RenewWorker():
                self.workers.add(change.worker)
            case ch.RetireWorker() | ch.BuryWorker():
                self.workers.add(change.worker)
                self.leaving.add(change.worker)

    def _claimed_by(self, worker: str | None) -> None:
        if worker is not None:
            self.workers.add(worker)

    def _deliver(self, change: ch.Deliver) -> None:
        self._claimed_by(change.worker)
        key = change.message.key
        if change.run_id is not None:
            self.runs.add(change.run_id)
            if key is not None:
                self.run_keys.add((change.run_id, key))
        elif change.workflow_id is not None:
            self.workflows.add(change.workflow_id)
            if key is not None:
                self.workflow_keys.add((change.workflow_id, key))
        if change.reply_to is not None:
            for answer in (change.delivered, change.undelivered):
                if answer is not None:
                    self._deliver(ch.Deliver(answer, run_id=change.reply_to))

    def parameters(self) -> Row:
        """For `load`, but for its first."""
        chain_keys = {(self.chains[run_id], key) for run_id, key in self.run_keys if run_id in self.chains}
        for workflow_id, key in self.workflow_keys:
            chain_keys |= {(chain_id, key) for chain_id in self.chains_of.get(workflow_id, ())}
        pairs = (self.tasks, self.run_keys, self.workflow_keys, chain_keys, self.activities, self.timers)
        columns = [column for rows in pairs for column in _columns(rows)]
        plain = (self.runs, self.workflows, self.followed, self.workers, self.leaving)
        return (*map(list, plain), *columns)


def _columns(rows: Collection[Any]) -> tuple[list[Any], list[Any]]:
    return [row[0] for row in rows], [row[1] for row in rows]


class Loaded(Tables):
    """Tables with the rows that were wanted. `before` has the rows as they were, by table and key."""

    def __init__(self, wanted: Wanted, found: Mapping[str, Any], horizon: dict[str, int]) -> None:
        super().__init__(horizon)
        self.now = found["now"]
        self.unused: set[str] | None = found.get("unused")  # None: all was looked up
        self.numbers: dict[str, int] = {}  # workflow id -> number of its newest run
        self.homes = dict(wanted.born)
        self.revisions: dict[str | Place, int] = {}  # of open runs and of activities
        for row in found["runs"]:
            self._add_run(RunRow(*row[:RUN]), *row[RUN : RUN + 3])
        for chain_id in wanted.chains.values():
            self.keys.setdefault(chain_id, {})
        for chain_id, key in found["keys"]:
            self.keys.setdefault(chain_id, {})[key] = None
        self.chains_before = dict(self.keys)
        self.keys_before = {(chain_id, key) for chain_id, key in found["keys"]}
        self.workers = {row[0]: WorkerRow(*row) for row in found["workers"]}
        for run_id, task, digest in found["tasks"]:
            self.history.setdefault(run_id, {})[task] = HistoryRow(task, 0, 0, "", digest)
        for *row, lost, revision in found["activities"]:
            activity = ActivityRow(*row)
            place = activity.run_id, activity.activity
            self.activities.setdefault(activity.run_id, {})[activity.activity] = activity
            self.revisions[place] = revision
            if lost:
                self.lost[place] = None
        for row in found["timers"]:
            self.timers.setdefault(row[0], {})[row[1]] = TimerRow(*row)
        self.runs_before, self.workers_before, self.lost_before = dict(self.runs), dict(self.workers), set(self.lost)
        self.history_before = _flat(self.history)
        self.activities_before, self.timers_before = _flat(self.activities), _flat(self.timers)

    def _add_run(self, run: RunRow, number: int, home: str | None, revision: int | None) -> None:
        self.runs[run.run_id] = run
        self.keys.setdefault(run.chain_id, {})
        if number > self.numbers.get(run.workflow_id, 0):
            self.numbers[run.workflow_id] = number
            self.newest[run.workflow_id] = run.run_id
        if revision is None:
            return
        self.revisions[run.run_id] = revision
        self.homes[run.run_id] = home
        self.open_runs[run.workflow_id] = run.run_id
        if run.parent_run_id is not None:
            self.children.setdefault(run.parent_run_id, {})[run.run_id] = None
        if run.terminate is not None:
            self.terminate[run.run_id] = None

    def difference(self) -> Row | None:
        """The parameters of `write`; None when nothing changed."""
        marked, created, live, opened, closed = self._runs()
        activities, timers = _flat(self.activities), _flat(self.timers)
        scheduled = [
            place
            for place, row in activities.items()
            if self.activities_before.get(place) is not row or (place in self.lost) != (place in self.lost_before)
        ]
        finished = [place for place in self.activities_before if place not in activities]
        dropped = [place for place in self.timers_before if place not in timers]
        ended = [chain for chain, keys in self.chains_before.items() if self.keys.get(chain) is not keys]
        changes: tuple[list[Any], ...] = (
            live,
            [
                (run_id, *astuple(row))
                for (run_id, task), row in _flat(self.history).items()
                if self.history_before.get((run_id, task)) is not row
            ],
            [(run_id, number, data) for (run_id, number), data in _flat(self.inbox).items()],
            [(run_id, read) for run_id, _, _, _, _, _, read, *_ in live if read > self.runs_before[run_id].inbox_read],
            finished,
            [(*astuple(activities[place]), place in self.lost) for place in scheduled],
            *(marked, created, opened, closed, ended),
            [
                (chain, key)
                for chain, keys in self.keys.items()
                for key in keys
                if chain in ended or (chain, key) not in self.keys_before
            ],
            [astuple(row) for place, row in timers.items() if self.timers_before.get(place) is not row],
            dropped,
            [astuple(row) for name, row in self.workers.items() if self.workers_before.get(name) is not row],
            [name for name in self.workers_before if name not in self.workers],
            [run_id for run_id in self.runs_before if run_id not in self.runs],
        )
        if not any(changes):
            return None
        runs = [row[0] for row in live] + closed
        judged = [place for place in (*scheduled, *finished) if place in self.revisions]
        if self.unused is not None:  # nothing was looked at just now, so what is not changed is to be judged as well
            runs = [key for key in self.revisions if isinstance(key, str)]
            judged = [key for key in self.revisions if not isinstance(key, str)]
        return (
            list(self.unused or ()),
            list(self.workers_before),
            *(runs, [self.revisions[run_id] for run_id in runs]),
            *(*_columns(judged), [self.revisions[place] for place in judged]),
            *_columns(dropped),
            *changes,
        )

    def written(self, revision: int, workers: Container[str | None]) -> dict[str | Place, Row]:
        """What `difference` has changed of what is warm at these workers, as `load` would return it now."""
        known: dict[str | Place, Row] = {}
        for run_id, run in self.runs.items():
            if run.is_open and run is not self.runs_before.get(run_id) and self.homes[run_id] in workers:
                number = self.numbers[run.workflow_id]  # that of the newest, which an open run is
                known[run_id] = (*astuple(run), number, self.homes[run_id], revision)
        for place, row in _flat(self.activities).items():
            small = len(row.data) + len(row.heartbeat or "") + len(row.last_failure or "") < _LONG
            if row is not self.activities_before.get(place) and row.worker in workers and small:
                known[place] = (*astuple(row), place in self.lost, revision)
        return known

    def _runs(self) -> tuple[list[Row], list[Row], list[Row], list[Row], list[str]]:
        """Rows of runs that were marked and created, of open runs that changed and began, and ids of closed ones."""
        marked: list[Row] = []
        created: list[Row] = []
        live: list[Row] = []
        opened: list[Row] = []
        closed: list[str] = []
        for run_id, run in self.runs.items():
            old = self.runs_before.get(run_id)
            if run is old:
                continue
            if old is None:
                self.numbers[run.workflow_id] = number = self.numbers.get(run.workflow_id, 0) + 1
                created.append((number, *_RUN(run)))
            elif run.status != old.status:
                marked.append((0, *_RUN(run)))
            if run.is_open:
                self.homes[run_id] = home = self._home(run, old)
                (opened if old is None else live).append((*_LIVE(run), home))
            elif old is not None:
                closed.append(run_id)
        created.sort(key=lambda row: str(row[2]))  # so that two batches wait for each other in one direction only
        return marked, created, live, opened, closed

    def _home(self, run: RunRow, old: RunRow | None) -> str | None:
        """The engine that may hold a run warm; one that gave it back undone, or cannot go on, does not."""
        if run.claim is not None:
            return run.worker
        given_back = old is not None and old.claim is not None and old.tasks == run.tasks and run.ready_at is not None
        return None if given_back else self.homes.get(run.run_id)


def _flat(table: Mapping[str, Mapping[int, V]]) -> dict[Place, V]:
    return {(run_id, number): row for run_id, rows in table.items() for number, row in rows.items()}
