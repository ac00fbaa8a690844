-- Handing out work: candidates are picked here and claimed one by one in the same transaction.

-- name: doomed_runs(limit)
-- Runs that are to be terminated and that nobody has taken yet.
SELECT * FROM runs WHERE terminate IS NOT NULL AND claim IS NULL ORDER BY run_id LIMIT :limit;

-- name: ready_runs(types, now, limit)
-- Of each kind the longest ready, then of all the longest ready. `types` is a JSON array of [type, version].
SELECT run.* FROM json_each(:types) AS type CROSS JOIN runs AS run WHERE run.rowid IN (
    SELECT rowid FROM runs
    WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes = 0 AND workflow_type = json_extract(type.value, '$[0]')
        AND version = json_extract(type.value, '$[1]') AND ready_at <= :now ORDER BY ready_at, run_id LIMIT :limit
)
ORDER BY run.ready_at, run.run_id LIMIT :limit;

-- name: suspect_runs(types, now, limit)
-- The same for runs whose worker died while it held them.
SELECT run.* FROM json_each(:types) AS type CROSS JOIN runs AS run WHERE run.rowid IN (
    SELECT rowid FROM runs
    WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes > 0 AND workflow_type = json_extract(type.value, '$[0]')
        AND version = json_extract(type.value, '$[1]') AND ready_at <= :now ORDER BY ready_at, run_id LIMIT :limit
)
ORDER BY run.ready_at, run.run_id LIMIT :limit;

-- name: claim_run(run_id, claim, worker, claimed)
UPDATE runs SET claim = :claim, worker = :worker, ready_at = :claimed WHERE run_id = :run_id;

-- name: messages(run_id)
-- As bytes: text that is damaged would end the claims of all runs, not only of its own.
SELECT number, CAST(data AS BLOB) FROM inbox WHERE run_id = :run_id ORDER BY number;

-- name: due_activities(queues, names, now, limit)
-- Of each queue and name the longest due, then of all the longest due. `queues` and `names` are JSON arrays.
SELECT activity.*
FROM json_each(:queues) AS served CROSS JOIN json_each(:names) AS known CROSS JOIN activities AS activity
WHERE activity.rowid IN (
    SELECT rowid FROM activities
    WHERE claim IS NULL AND queue = served.value AND name = known.value AND due_at <= :now
    ORDER BY due_at, run_id, activity LIMIT :limit
)
ORDER BY activity.due_at, activity.run_id, activity.activity LIMIT :limit;

-- name: claim_activity(run_id, activity, claim, worker, started_at, timeout_at)
UPDATE activities SET claim = :claim, worker = :worker, started_at = :started_at, timeout_at = :timeout_at
WHERE run_id = :run_id AND activity = :activity;

-- name: first_timers(now, limit)
-- Those that are due, and the one after them: how many wait behind it costs nothing.
SELECT * FROM (SELECT * FROM timers WHERE fire_at <= :now ORDER BY fire_at, run_id, timer LIMIT :limit) AS due
UNION ALL SELECT * FROM (SELECT * FROM timers WHERE fire_at > :now ORDER BY fire_at LIMIT 1) AS next;

-- name: lost_activities(limit)
SELECT * FROM activities WHERE lost = 1 ORDER BY run_id, activity LIMIT :limit;

-- name: first_timeouts(now, limit)
-- As with timers.
SELECT * FROM (
    SELECT * FROM activities WHERE timeout_at IS NOT NULL AND lost = 0 AND timeout_at <= :now
    ORDER BY timeout_at, run_id, activity LIMIT :limit
) AS due
UNION ALL SELECT * FROM (
    SELECT * FROM activities WHERE timeout_at IS NOT NULL AND lost = 0 AND timeout_at > :now ORDER BY timeout_at LIMIT 1
) AS next;

-- name: all_workers()
SELECT worker, name, lease_until, serves FROM workers ORDER BY lease_until, worker;

-- name: stored_now()
SELECT value FROM meta WHERE key = 'now';

-- name: store_now(now)
UPDATE meta SET value = :now WHERE key = 'now';
