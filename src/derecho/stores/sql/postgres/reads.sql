-- Reads that decide nothing.

-- name: load(run_ids)
SELECT history.* FROM unnest(:run_ids::text[]) AS wanted (run_id) CROSS JOIN LATERAL (
    SELECT * FROM derecho.history WHERE run_id = wanted.run_id ORDER BY task
) AS history;

-- name: get_run(run_id)
SELECT * FROM derecho.run_rows WHERE run_id = :run_id;

-- name: find_run(workflow_id)
SELECT * FROM derecho.run_rows WHERE workflow_id = :workflow_id ORDER BY number DESC LIMIT 1;

-- name: closed(run_ids)
-- The answer has the order of `run_ids`.
SELECT run.* FROM unnest(:run_ids::text[]) WITH ORDINALITY AS wanted (run_id, place)
CROSS JOIN LATERAL (SELECT * FROM derecho.run_rows WHERE run_id = wanted.run_id OFFSET 0) AS run
WHERE run.closed_at IS NOT NULL ORDER BY wanted.place;

-- name: children(run_id)
SELECT * FROM derecho.run_rows WHERE parent_run_id = :run_id AND closed_at IS NULL ORDER BY run_id;

-- name: pending(run_id)
-- One statement, so that all of it is of the same instant.
SELECT ARRAY(SELECT row(activity.*) FROM derecho.activities AS activity WHERE run_id = :run_id ORDER BY activity),
    ARRAY(SELECT row(run_id, timer, fire_at) FROM derecho.timers WHERE run_id = :run_id ORDER BY timer),
    ARRAY(SELECT row(number, data) FROM derecho.inbox WHERE run_id = :run_id ORDER BY number);

-- name: attempts(run_ids, activities)
SELECT activity.run_id, activity.activity, activity.claim, activity.cancel_requested
FROM unnest(:run_ids::text[], :activities::bigint[]) WITH ORDINALITY AS wanted (run_id, activity, place)
CROSS JOIN LATERAL (
    SELECT * FROM derecho.activities WHERE run_id = wanted.run_id AND activity = wanted.activity OFFSET 0
) AS activity ORDER BY wanted.place;

-- name: list_runs(before_at, before_id, limit)
SELECT * FROM derecho.run_rows WHERE (started_at, run_id) < (:before_at, :before_id)
ORDER BY started_at DESC, run_id DESC LIMIT :limit;

-- name: list_by_type(workflow_type, before_at, before_id, limit)
-- With an equality the planner may read the newest runs of all types until it has found enough of this one.
SELECT * FROM derecho.run_rows WHERE workflow_type >= :workflow_type
  AND (workflow_type, started_at, run_id) < (:workflow_type, :before_at, :before_id)
ORDER BY workflow_type DESC, started_at DESC, run_id DESC LIMIT :limit;

-- name: list_by_status(status, workflow_type, before_at, before_id, limit)
-- As by type.
SELECT * FROM derecho.run_rows WHERE status >= :status
  AND (status, started_at, run_id) < (:status, :before_at, :before_id)
  AND (:workflow_type::text IS NULL OR workflow_type = :workflow_type)
ORDER BY status DESC, started_at DESC, run_id DESC LIMIT :limit;

-- name: list_of_workflow(workflow_id, status, workflow_type, before_at, before_id, limit)
SELECT * FROM derecho.run_rows WHERE workflow_id = :workflow_id AND (started_at, run_id) < (:before_at, :before_id)
  AND (:status::text IS NULL OR status = :status)
  AND (:workflow_type::text IS NULL OR workflow_type = :workflow_type)
ORDER BY started_at DESC, run_id DESC LIMIT :limit;

-- name: live_workers(now)
SELECT worker, name, lease_until, serves FROM derecho.workers
WHERE lease_until > coalesce(:now::bigint, derecho.instant()) ORDER BY worker;

-- name: state()
-- What this server promises.
SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS in_recovery,
    current_setting('server_version_num')::int AS version;
