-- The first schema. Instants are microseconds since 1970 UTC; payloads are the JSON text that our encoder wrote.
-- Ordinary (rowid) tables: rows are appended, so a commit touches few pages; see docs/decisions/0002.

-- One row per run. After `number`, the columns are the fields of `RunRow`, in its order.
CREATE TABLE runs (
    number INTEGER NOT NULL,  -- 1, 2, 3 … among the runs of its workflow id
    run_id TEXT NOT NULL UNIQUE, workflow_id TEXT NOT NULL, workflow_type TEXT NOT NULL, queue TEXT NOT NULL,
    status TEXT NOT NULL, version INTEGER NOT NULL, chain_id TEXT NOT NULL, started_at INTEGER NOT NULL,
    closed_at INTEGER,  -- NULL: it is open
    tasks INTEGER NOT NULL, events INTEGER NOT NULL, digest TEXT NOT NULL, inbox_last INTEGER NOT NULL,
    inbox_read INTEGER NOT NULL,
    ready_at INTEGER,  -- NULL: asleep or closed; 2^62: claimed
    claim TEXT, worker TEXT, crashes INTEGER NOT NULL, blocked_reason TEXT, blocked_count INTEGER NOT NULL,
    parent_run_id TEXT, parent_child INTEGER, close_policy TEXT, outcome TEXT, terminate TEXT,
    CHECK (inbox_read <= inbox_last),
    CHECK ((closed_at IS NULL) = (status IN ('running', 'blocked', 'cancelling'))),
    CHECK (closed_at IS NULL OR (ready_at IS NULL AND claim IS NULL AND terminate IS NULL))
) STRICT;

CREATE UNIQUE INDEX one_open_run ON runs (workflow_id) WHERE closed_at IS NULL;
CREATE UNIQUE INDEX runs_of_workflow ON runs (workflow_id, number);
CREATE INDEX runs_by_start ON runs (started_at, run_id);
CREATE INDEX runs_by_type ON runs (workflow_type, started_at, run_id);
CREATE INDEX runs_by_status ON runs (status, started_at, run_id);
CREATE INDEX ready_runs ON runs (workflow_type, ready_at, run_id)
    WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes = 0;
CREATE INDEX suspect_runs ON runs (workflow_type, ready_at, run_id)
    WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes > 0;
CREATE INDEX doomed_runs ON runs (run_id) WHERE terminate IS NOT NULL;
CREATE INDEX held_runs ON runs (worker) WHERE worker IS NOT NULL;
CREATE INDEX open_children ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL AND closed_at IS NULL;

-- One row per workflow task: its events as a JSON array, its digest over the digest before it.
CREATE TABLE history (
    run_id TEXT NOT NULL, task INTEGER NOT NULL, first_event INTEGER NOT NULL, at INTEGER NOT NULL,
    data TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (run_id, task)
) STRICT;

-- Facts that arrived and are not yet in history. Numbers come from `runs.inbox_last`.
CREATE TABLE inbox (
    run_id TEXT NOT NULL, number INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (run_id, number)
) STRICT;

-- Keys of messages that the runs of a chain have received, until the chain ends.
CREATE TABLE message_keys (
    chain_id TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (chain_id, key)
) STRICT, WITHOUT ROWID;

-- Activities without an outcome. After `lost`, the columns are the fields of `ActivityRow`, in its order.
CREATE TABLE activities (
    lost INTEGER NOT NULL,  -- 1: the worker that held it is dead
    run_id TEXT NOT NULL, activity INTEGER NOT NULL, workflow_id TEXT NOT NULL, workflow_type TEXT NOT NULL,
    name TEXT NOT NULL, queue TEXT NOT NULL, data TEXT NOT NULL, scheduled_at INTEGER NOT NULL, due_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL, timeout_at INTEGER, close_at INTEGER, claim TEXT, worker TEXT, started_at INTEGER,
    heartbeat TEXT, last_failure TEXT, cancel_requested INTEGER NOT NULL, PRIMARY KEY (run_id, activity)
) STRICT;

CREATE INDEX due_activities ON activities (queue, name, due_at, run_id, activity) WHERE claim IS NULL;
CREATE INDEX activity_timeouts ON activities (timeout_at, run_id, activity) WHERE timeout_at IS NOT NULL AND lost = 0;
CREATE INDEX lost_activities ON activities (run_id, activity) WHERE lost = 1;
CREATE INDEX held_activities ON activities (worker) WHERE worker IS NOT NULL;

CREATE TABLE timers (
    run_id TEXT NOT NULL, timer INTEGER NOT NULL, fire_at INTEGER NOT NULL, PRIMARY KEY (run_id, timer)
) STRICT, WITHOUT ROWID;

CREATE INDEX timers_by_instant ON timers (fire_at, run_id, timer);

-- Live engines; `serves` is a JSON array.
CREATE TABLE workers (
    worker TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, lease_until INTEGER NOT NULL, serves TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- `schema`: the number of the newest migration. `now`: the instant of the newest commit; the clock never goes below it.
CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta (key, value) VALUES ('schema', 0), ('now', 0);
