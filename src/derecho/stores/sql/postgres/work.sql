-- Handing out work. Picks are materialised and carry their limit with them, so that no plan can take more; rows that
-- others hold are skipped. Claims run in a transaction: what is read behind the lock is what is claimed.

-- name: instant(now)
SELECT coalesce(:now::bigint, derecho.instant());

-- name: first_run(now, types)
-- Now, and when the first run that could be claimed is ready.
SELECT coalesce(:now::bigint, derecho.instant()), (SELECT min(at) FROM (
    (SELECT 0 AS at FROM derecho.live WHERE terminate IS NOT NULL AND claim IS NULL LIMIT 1)
    UNION ALL SELECT first.at FROM unnest(:types::text[]) AS wanted (workflow_type) CROSS JOIN LATERAL (
        SELECT ready_at AS at FROM derecho.live WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes = 0
            AND live.workflow_type = wanted.workflow_type ORDER BY ready_at, run_id LIMIT 1
    ) AS first
    UNION ALL SELECT first.at FROM unnest(:types::text[]) AS wanted (workflow_type) CROSS JOIN LATERAL (
        SELECT ready_at AS at FROM derecho.live WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes > 0
            AND live.workflow_type = wanted.workflow_type ORDER BY ready_at, run_id LIMIT 1
    ) AS first
) AS instants);

-- name: lock_worker(worker)
-- A worker that is buried meanwhile waits for us, and so frees what we claim.
SELECT 1 FROM derecho.workers WHERE worker = :worker FOR KEY SHARE;

-- name: pick_runs(now, worker, types, limit, suspects, patience)
-- First those to be terminated, then the longest ready. A run whose home is another live engine is left to that one
-- for `patience` microseconds (NULL: for ever none).
WITH clock AS MATERIALIZED (
    SELECT coalesce(:now::bigint, derecho.instant()) AS now
), others AS MATERIALIZED (
    SELECT worker FROM derecho.workers
    WHERE lease_until > (SELECT now FROM clock) AND worker <> :worker AND :patience::bigint IS NOT NULL
), doomed AS MATERIALIZED (
    SELECT run_id, 0 AS rank, 0::bigint AS ready_at FROM derecho.live WHERE terminate IS NOT NULL AND claim IS NULL
    ORDER BY run_id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
), ready AS MATERIALIZED (
    SELECT picked.run_id, 1 AS rank, picked.ready_at
    FROM unnest(:types::text[]) AS wanted (workflow_type) CROSS JOIN LATERAL (
        SELECT run_id, ready_at FROM derecho.live WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes = 0
            AND live.workflow_type = wanted.workflow_type AND ready_at <= (SELECT now FROM clock)
            AND (home IS NULL OR home NOT IN (SELECT worker FROM others)
                OR ready_at <= (SELECT now FROM clock) - :patience::bigint)
        ORDER BY ready_at, run_id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
    ) AS picked ORDER BY picked.ready_at, picked.run_id LIMIT :limit - (SELECT count(*) FROM doomed)
), suspect AS MATERIALIZED (
    SELECT picked.run_id, 1 AS rank, picked.ready_at
    FROM unnest(:types::text[]) AS wanted (workflow_type) CROSS JOIN LATERAL (
        SELECT run_id, ready_at FROM derecho.live WHERE claim IS NULL AND ready_at IS NOT NULL AND crashes > 0
            AND live.workflow_type = wanted.workflow_type AND ready_at <= (SELECT now FROM clock)
        ORDER BY ready_at, run_id LIMIT :suspects FOR NO KEY UPDATE SKIP LOCKED
    ) AS picked
    ORDER BY picked.ready_at, picked.run_id LIMIT least(:suspects, :limit - (SELECT count(*) FROM doomed))
)
SELECT run_id FROM (
    SELECT * FROM doomed
    UNION ALL SELECT * FROM ready WHERE run_id NOT IN (SELECT run_id FROM doomed)
    UNION ALL SELECT * FROM suspect WHERE run_id NOT IN (SELECT run_id FROM doomed)
) AS picked ORDER BY rank, ready_at, run_id LIMIT :limit;

-- name: claim_runs(run_ids, claims, worker)
UPDATE derecho.live AS run SET claim = picked.claim, worker = :worker, home = :worker, ready_at = 4611686018427387904
FROM unnest(:run_ids::text[], :claims::text[]) AS picked (run_id, claim)
WHERE run.run_id = picked.run_id AND run.run_id = ANY (:run_ids::text[]);

-- name: claimed_runs(run_ids)
SELECT run.*, ARRAY(
    SELECT row(message.number, message.data) FROM derecho.inbox AS message
    WHERE message.run_id = run.run_id ORDER BY message.number
) AS messages FROM unnest(:run_ids::text[]) WITH ORDINALITY AS wanted (run_id, place)
CROSS JOIN LATERAL (SELECT * FROM derecho.run_rows WHERE run_id = wanted.run_id OFFSET 0) AS run
ORDER BY wanted.place;

-- name: first_activity(now, names, queues)
-- Now, and when the first activity that could be claimed is due.
SELECT coalesce(:now::bigint, derecho.instant()), (
    SELECT min(first.due_at)
    FROM unnest(:queues::text[]) AS served (queue) CROSS JOIN unnest(:names::text[]) AS known (name)
    CROSS JOIN LATERAL (
        SELECT due_at FROM derecho.activities
        WHERE claim IS NULL AND activities.queue = served.queue AND activities.name = known.name
        ORDER BY due_at, run_id, activity LIMIT 1
    ) AS first
);

-- name: pick_activities(now, names, queues, limit)
-- Of each queue and name the longest due, then of all the longest due.
WITH clock AS MATERIALIZED (
    SELECT coalesce(:now::bigint, derecho.instant()) AS now
), due AS MATERIALIZED (
    SELECT picked.* FROM unnest(:queues::text[]) AS served (queue) CROSS JOIN unnest(:names::text[]) AS known (name)
    CROSS JOIN LATERAL (
        SELECT activity.* FROM derecho.activities AS activity
        WHERE claim IS NULL AND activity.queue = served.queue AND activity.name = known.name
            AND due_at <= (SELECT now FROM clock)
        ORDER BY due_at, run_id, activity LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
    ) AS picked
)
SELECT clock.now, due.* FROM due, clock ORDER BY due_at, run_id, activity LIMIT :limit;

-- name: claim_activities(activity_runs, activities, claims, timeouts, worker, started_at)
UPDATE derecho.activities AS activity
SET claim = picked.claim, worker = :worker, started_at = :started_at, timeout_at = picked.timeout_at
FROM unnest(:activity_runs::text[], :activities::bigint[], :claims::text[], :timeouts::bigint[])
    AS picked (run_id, activity, claim, timeout_at)
WHERE activity.run_id = picked.run_id AND activity.activity = picked.activity
  AND activity.run_id = ANY (:activity_runs::text[]);

-- name: first_timers(now, limit)
-- Those that are due, and the one after them: how many wait behind it costs nothing.
WITH clock AS MATERIALIZED (SELECT coalesce(:now::bigint, derecho.instant()) AS now), due AS (
    SELECT * FROM derecho.timers
    WHERE fire_at <= (SELECT now FROM clock) ORDER BY fire_at, run_id, timer LIMIT :limit
), next AS (
    SELECT * FROM derecho.timers WHERE fire_at > (SELECT now FROM clock) ORDER BY fire_at LIMIT 1
)
SELECT clock.now, found.* FROM clock, (TABLE due UNION ALL TABLE next) AS found ORDER BY fire_at, run_id, timer;

-- name: overdue(now, limit)
-- Activities of the dead; activities past a deadline, and the one after them, as with timers; all engines.
WITH clock AS MATERIALIZED (SELECT coalesce(:now::bigint, derecho.instant()) AS now), due AS (
    SELECT * FROM derecho.activities
    WHERE timeout_at IS NOT NULL AND NOT lost AND timeout_at <= (SELECT now FROM clock)
    ORDER BY timeout_at, run_id, activity LIMIT :limit
), next AS (
    SELECT * FROM derecho.activities
    WHERE timeout_at IS NOT NULL AND NOT lost AND timeout_at > (SELECT now FROM clock) ORDER BY timeout_at LIMIT 1
)
SELECT (SELECT now FROM clock), ARRAY(
    SELECT row(lost.*) FROM derecho.activities AS lost WHERE lost.lost ORDER BY run_id, activity LIMIT :limit
), ARRAY(
    SELECT row(found.*) FROM (TABLE due UNION ALL TABLE next) AS found ORDER BY timeout_at, run_id, activity
), ARRAY(
    SELECT row(worker, name, lease_until, serves) FROM derecho.workers ORDER BY lease_until, worker
);
