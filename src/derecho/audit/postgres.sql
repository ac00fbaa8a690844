-- Whole tables, for the auditor alone.

-- name: runs()
SELECT * FROM derecho.run_rows;

-- name: strays()
-- What should hang on an open run, and does not.
SELECT live.run_id FROM derecho.live AS live LEFT JOIN derecho.runs AS run ON run.run_id = live.run_id
WHERE run.run_id IS NULL OR run.closed_at IS NOT NULL
UNION
SELECT run.run_id FROM derecho.runs AS run LEFT JOIN derecho.live AS live ON live.run_id = run.run_id
WHERE run.closed_at IS NULL AND live.run_id IS NULL;

-- name: history()
SELECT run_id, task, first_event, at, data, digest FROM derecho.history ORDER BY run_id, task;

-- name: inbox()
SELECT run_id, number, data FROM derecho.inbox ORDER BY run_id, number;

-- name: keys()
SELECT chain_id, key FROM derecho.message_keys;

-- name: activities()
SELECT * FROM derecho.activities ORDER BY run_id, activity;

-- name: timers()
SELECT run_id, timer, fire_at FROM derecho.timers ORDER BY run_id, timer;

-- name: workers()
SELECT worker FROM derecho.workers;
