-- What changes do to activities, timers and workers.

-- name: insert_activity(lost, run_id, activity, workflow_id, workflow_type, name, queue, data, scheduled_at, due_at,
--     attempt, timeout_at, close_at, claim, worker, started_at, heartbeat, last_failure, cancel_requested)
INSERT OR REPLACE INTO activities VALUES (
    :lost, :run_id, :activity, :workflow_id, :workflow_type, :name, :queue, :data, :scheduled_at, :due_at, :attempt,
    :timeout_at, :close_at, :claim, :worker, :started_at, :heartbeat, :last_failure, :cancel_requested
);

-- name: retry_activity(run_id, activity, claim, attempt, due_at, timeout_at, last_failure, now)
-- One that is no longer wanted is due at once, so that whoever claims it can end it.
UPDATE activities
SET claim = NULL, worker = NULL, started_at = NULL, lost = 0,
    attempt = :attempt, due_at = iif(cancel_requested, :now, :due_at), timeout_at = :timeout_at, last_failure = :last_failure
WHERE run_id = :run_id AND activity = :activity AND claim = :claim;

-- name: finish_activity(run_id, activity, claim)
DELETE FROM activities WHERE run_id = :run_id AND activity = :activity AND claim IS :claim;

-- name: flag_activity(run_id, activity)
UPDATE activities SET cancel_requested = 1 WHERE run_id = :run_id AND activity = :activity AND claim IS NOT NULL;

-- name: heartbeat(run_id, activity, claim, details, timeout_at)
UPDATE activities SET heartbeat = :details, timeout_at = :timeout_at
WHERE run_id = :run_id AND activity = :activity AND claim = :claim;

-- name: insert_timer(run_id, timer, fire_at)
INSERT OR REPLACE INTO timers VALUES (:run_id, :timer, :fire_at);

-- name: drop_timer(run_id, timer)
DELETE FROM timers WHERE run_id = :run_id AND timer = :timer;

-- name: alive()
SELECT worker FROM workers;

-- name: register(worker, name, lease_until, serves)
INSERT OR REPLACE INTO workers VALUES (:worker, :name, :lease_until, :serves);

-- name: renew(worker, lease_until)
UPDATE workers SET lease_until = :lease_until WHERE worker = :worker;

-- name: retire(worker)
DELETE FROM workers WHERE worker = :worker;

-- name: bury(worker, now)
DELETE FROM workers WHERE worker = :worker AND lease_until <= :now;

-- name: free_runs(worker, crashes, now)
UPDATE runs SET ready_at = :now, claim = NULL, worker = NULL, crashes = crashes + :crashes WHERE worker = :worker;

-- name: hand_back_activities(worker, now)
-- The same attempt, by somebody else; the deadline of the attempt goes with it.
UPDATE activities
SET claim = NULL, worker = NULL, started_at = NULL, lost = 0, due_at = :now, timeout_at = close_at
WHERE worker = :worker;

-- name: lose_activities(worker)
UPDATE activities SET lost = 1 WHERE worker = :worker;
