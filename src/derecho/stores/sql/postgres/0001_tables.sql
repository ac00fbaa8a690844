-- The first schema. Instants are microseconds since 1970 UTC; payloads are the JSON text that our encoder wrote, never
-- jsonb. Texts compare by code point ("C"), as Python's do. `derecho` stands for the schema that was asked for.

-- Applied steps, this one included.
CREATE TABLE derecho.migrations (
    number int NOT NULL PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What every run keeps, also when it is closed. It is written when a run begins, ends, or changes its status.
CREATE TABLE derecho.runs (
    number bigint NOT NULL,  -- 1, 2, 3 … among the runs of its workflow id
    run_id text COLLATE "C" NOT NULL PRIMARY KEY, workflow_id text COLLATE "C" NOT NULL,
    workflow_type text COLLATE "C" NOT NULL, queue text COLLATE "C" NOT NULL, status text COLLATE "C" NOT NULL,
    version bigint NOT NULL, chain_id text COLLATE "C" NOT NULL, started_at bigint NOT NULL,
    closed_at bigint,  -- NULL: it is open, and has a row in `live`
    tasks bigint NOT NULL,  -- this and the next three: of a closed run
    events bigint NOT NULL, digest text COLLATE "C" NOT NULL, inbox_last bigint NOT NULL,
    parent_run_id text COLLATE "C", parent_child bigint, close_policy text COLLATE "C", outcome text COLLATE "C",
    CHECK ((closed_at IS NULL) = (status IN ('running', 'blocked', 'cancelling')))
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX one_open_run ON derecho.runs (workflow_id) WHERE closed_at IS NULL;
CREATE UNIQUE INDEX runs_of_workflow ON derecho.runs (workflow_id, number);
CREATE INDEX runs_by_start ON derecho.runs (started_at, run_id);
CREATE INDEX runs_by_type ON derecho.runs (workflow_type, started_at, run_id);
CREATE INDEX runs_by_status ON derecho.runs (status, started_at, run_id);
CREATE INDEX open_children ON derecho.runs (parent_run_id) WHERE parent_run_id IS NOT NULL AND closed_at IS NULL;

-- What an open run is about just now: one narrow row, updated by every workflow task, gone when the run closes.
CREATE TABLE derecho.live (
    run_id text COLLATE "C" NOT NULL PRIMARY KEY, workflow_type text COLLATE "C" NOT NULL, tasks bigint NOT NULL,
    events bigint NOT NULL, digest text COLLATE "C" NOT NULL, inbox_last bigint NOT NULL, inbox_read bigint NOT NULL,
    ready_at bigint,  -- NULL: asleep; 2^62: claimed
    claim text COLLATE "C", worker text COLLATE "C", crashes bigint NOT NULL, blocked_reason text COLLATE "C",
    blocked_count bigint NOT NULL, terminate text COLLATE "C",
    home text COLLATE "C",  -- the engine that may still hold it warm
    CHECK (inbox_read <= inbox_last)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ready_runs ON derecho.live (workflow_type, ready_at, run_id)
    WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes = 0;
CREATE INDEX suspect_runs ON derecho.live (workflow_type, ready_at, run_id)
    WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes > 0;
CREATE INDEX doomed_runs ON derecho.live (run_id) WHERE terminate IS NOT NULL;
CREATE INDEX held_runs ON derecho.live (worker) WHERE worker IS NOT NULL;

-- One row per workflow task: its events as a JSON array, its digest over the digest before it.
CREATE TABLE derecho.history (
    run_id text COLLATE "C" NOT NULL, task bigint NOT NULL, first_event bigint NOT NULL, at bigint NOT NULL,
    data text COLLATE "C" NOT NULL, digest text COLLATE "C" NOT NULL, PRIMARY KEY (run_id, task)
);

-- Facts that arrived and are not yet in history. Numbers come from `live.inbox_last`.
CREATE TABLE derecho.inbox (
    run_id text COLLATE "C" NOT NULL, number bigint NOT NULL, data text COLLATE "C" NOT NULL,
    PRIMARY KEY (run_id, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Keys of messages that the runs of a chain have received, until the chain ends.
CREATE TABLE derecho.message_keys (
    chain_id text COLLATE "C" NOT NULL, key text COLLATE "C" NOT NULL, PRIMARY KEY (chain_id, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Activities without an outcome. Before `lost`, the columns are the fields of `ActivityRow`, in its order.
CREATE TABLE derecho.activities (
    run_id text COLLATE "C" NOT NULL, activity bigint NOT NULL, workflow_id text COLLATE "C" NOT NULL,
    workflow_type text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, queue text COLLATE "C" NOT NULL,
    data text COLLATE "C" NOT NULL, scheduled_at bigint NOT NULL, due_at bigint NOT NULL, attempt bigint NOT NULL,
    timeout_at bigint, close_at bigint, claim text COLLATE "C", worker text COLLATE "C", started_at bigint,
    heartbeat text COLLATE "C", last_failure text COLLATE "C", cancel_requested boolean NOT NULL,
    lost boolean NOT NULL,  -- the worker that held it is dead
    PRIMARY KEY (run_id, activity)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX due_activities ON derecho.activities (queue, name, due_at, run_id, activity) WHERE claim IS NULL;
CREATE INDEX activity_timeouts ON derecho.activities (timeout_at, run_id, activity)
    WHERE timeout_at IS NOT NULL AND NOT lost;
CREATE INDEX lost_activities ON derecho.activities (run_id, activity) WHERE lost;
CREATE INDEX held_activities ON derecho.activities (worker) WHERE worker IS NOT NULL;

CREATE TABLE derecho.timers (
    run_id text COLLATE "C" NOT NULL, timer bigint NOT NULL, fire_at bigint NOT NULL, PRIMARY KEY (run_id, timer)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX timers_by_instant ON derecho.timers (fire_at, run_id, timer);

-- Live engines: their claims are good until `lease_until`, by this database's clock.
CREATE TABLE derecho.workers (
    worker text COLLATE "C" NOT NULL PRIMARY KEY, name text COLLATE "C" NOT NULL, lease_until bigint NOT NULL,
    serves text[] NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 20);

-- Rows as a batch hands them over, in arrays. A later release adds types of its own and leaves these alone, because
-- engines of this release may still be running.
CREATE TYPE derecho.run_1 AS (
    number bigint, run_id text, workflow_id text, workflow_type text, queue text, status text, version bigint,
    chain_id text, started_at bigint, closed_at bigint, tasks bigint, events bigint, digest text, inbox_last bigint,
    parent_run_id text, parent_child bigint, close_policy text, outcome text
);
CREATE TYPE derecho.live_run_1 AS (
    run_id text, workflow_type text, tasks bigint, events bigint, digest text, inbox_last bigint, inbox_read bigint,
    ready_at bigint, claim text, worker text, crashes bigint, blocked_reason text, blocked_count bigint,
    terminate text, home text
);
CREATE TYPE derecho.history_row_1 AS (
    run_id text, task bigint, first_event bigint, at bigint, data text, digest text
);
CREATE TYPE derecho.message_1 AS (run_id text, number bigint, data text);
CREATE TYPE derecho.place_1 AS (run_id text, number bigint);
CREATE TYPE derecho.key_1 AS (chain_id text, key text);
CREATE TYPE derecho.activity_1 AS (
    run_id text, activity bigint, workflow_id text, workflow_type text, name text, queue text, data text,
    scheduled_at bigint, due_at bigint, attempt bigint, timeout_at bigint, close_at bigint, claim text, worker text,
    started_at bigint, heartbeat text, last_failure text, cancel_requested boolean, lost boolean
);
CREATE TYPE derecho.timer_1 AS (run_id text, timer bigint, fire_at bigint);
CREATE TYPE derecho.worker_1 AS (worker text, name text, lease_until bigint, serves text[]);

-- The deciding clock. It moves on within a statement, so it can be read after a lock was waited for.
CREATE FUNCTION derecho.instant() RETURNS bigint LANGUAGE sql VOLATILE
    RETURN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- A run as `RunRow` has it, then what only the store needs.
CREATE VIEW derecho.run_rows AS
SELECT run.run_id, run.workflow_id, run.workflow_type, run.queue, run.status, run.version, run.chain_id,
    run.started_at, run.closed_at, coalesce(live.tasks, run.tasks) AS tasks,
    coalesce(live.events, run.events) AS events, coalesce(live.digest, run.digest) AS digest,
    coalesce(live.inbox_last, run.inbox_last) AS inbox_last, coalesce(live.inbox_read, run.inbox_last) AS inbox_read,
    live.ready_at, live.claim, live.worker, coalesce(live.crashes, 0) AS crashes, live.blocked_reason,
    coalesce(live.blocked_count, 0) AS blocked_count, run.parent_run_id, run.parent_child, run.close_policy,
    run.outcome, live.terminate, run.number, live.home, live.xmin AS revision
FROM derecho.runs AS run LEFT JOIN derecho.live AS live ON live.run_id = run.run_id;
