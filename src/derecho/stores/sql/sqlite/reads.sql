-- Reads that decide nothing. They run on a connection of their own and never wait for a commit.

-- name: load(run_id)
SELECT task, first_event, at, data, digest FROM history WHERE run_id = :run_id ORDER BY task;

-- name: get_run(run_id)
SELECT * FROM runs WHERE run_id = :run_id;

-- name: find_run(workflow_id)
SELECT * FROM runs WHERE workflow_id = :workflow_id ORDER BY number DESC LIMIT 1;

-- name: closed(run_ids)
-- `run_ids` is a JSON array; the answer has its order.
SELECT run.* FROM json_each(:run_ids) AS wanted CROSS JOIN runs AS run ON run.run_id = wanted.value
WHERE run.closed_at IS NOT NULL ORDER BY wanted.key;

-- name: children(run_id)
SELECT * FROM runs WHERE parent_run_id = :run_id AND closed_at IS NULL ORDER BY run_id;

-- name: activities(run_id)
SELECT * FROM activities WHERE run_id = :run_id ORDER BY activity;

-- name: timers(run_id)
SELECT run_id, timer, fire_at FROM timers WHERE run_id = :run_id ORDER BY timer;

-- name: messages(run_id)
SELECT number, data FROM inbox WHERE run_id = :run_id ORDER BY number;

-- name: attempts(places)
-- `places` is a JSON array of [run id, event id].
SELECT activity.run_id, activity.activity, activity.claim, activity.cancel_requested
FROM json_each(:places) AS place CROSS JOIN activities AS activity
    ON activity.run_id = json_extract(place.value, '$[0]') AND activity.activity = json_extract(place.value, '$[1]')
ORDER BY place.key;

-- name: list_runs(before_at, before_id, limit)
SELECT * FROM runs WHERE (started_at, run_id) < (:before_at, :before_id)
ORDER BY started_at DESC, run_id DESC LIMIT :limit;

-- name: list_by_type(workflow_type, before_at, before_id, limit)
SELECT * FROM runs WHERE workflow_type = :workflow_type AND (started_at, run_id) < (:before_at, :before_id)
ORDER BY started_at DESC, run_id DESC LIMIT :limit;

-- name: list_by_status(status, workflow_type, before_at, before_id, limit)
SELECT * FROM runs WHERE status = :status AND (started_at, run_id) < (:before_at, :before_id)
  AND (:workflow_type IS NULL OR workflow_type = :workflow_type) ORDER BY started_at DESC, run_id DESC LIMIT :limit;

-- name: list_of_workflow(workflow_id, status, workflow_type, before_at, before_id, limit)
SELECT * FROM runs WHERE workflow_id = :workflow_id AND (started_at, run_id) < (:before_at, :before_id)
  AND (:status IS NULL OR status = :status)
  AND (:workflow_type IS NULL OR workflow_type = :workflow_type) ORDER BY started_at DESC, run_id DESC LIMIT :limit;

-- name: live_workers(now)
SELECT worker, name, lease_until, serves FROM workers WHERE lease_until > :now ORDER BY worker;
