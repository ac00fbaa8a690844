-- Whole tables, for the auditor alone.

-- name: runs()
SELECT * FROM runs;

-- name: history()
SELECT run_id, task, first_event, at, data, digest FROM history ORDER BY run_id, task;

-- name: inbox()
SELECT run_id, number, data FROM inbox ORDER BY run_id, number;

-- name: keys()
SELECT chain_id, key FROM message_keys;

-- name: activities()
SELECT * FROM activities ORDER BY run_id, activity;

-- name: timers()
SELECT run_id, timer, fire_at FROM timers ORDER BY run_id, timer;

-- name: workers()
SELECT worker FROM workers;
