-- What changes do to runs and their inboxes. All of it runs inside BEGIN IMMEDIATE, so what was read stays true.

-- name: insert_run(number, run_id, workflow_id, workflow_type, queue, status, version, chain_id, started_at,
--     closed_at, tasks, events, digest, inbox_last, inbox_read, ready_at, claim, worker, crashes, blocked_reason,
--     blocked_count, parent_run_id, parent_child, close_policy, outcome, terminate)
INSERT INTO runs VALUES (
    :number, :run_id, :workflow_id, :workflow_type, :queue, :status, :version, :chain_id, :started_at, :closed_at,
    :tasks, :events, :digest, :inbox_last, :inbox_read, :ready_at, :claim, :worker, :crashes, :blocked_reason,
    :blocked_count, :parent_run_id, :parent_child, :close_policy, :outcome, :terminate
);

-- name: run_exists(run_id)
SELECT 1 FROM runs WHERE run_id = :run_id;

-- name: newest(workflow_id)
-- The open run of a workflow id is always its newest.
SELECT run_id, number, closed_at FROM runs WHERE workflow_id = :workflow_id ORDER BY number DESC LIMIT 1;

-- name: advance(run_id, tasks, events, digest, claim, status, new_tasks, new_events, new_digest, consume_to, keep,
--     now, take, worker, claimed)
-- One workflow task of a run whose status stays. The index on the status is then left alone, as is most of the row.
UPDATE runs
SET tasks = :new_tasks, events = :new_events, digest = :new_digest,
    inbox_read = max(inbox_read, min(coalesce(:consume_to, inbox_read), inbox_last)),
    ready_at = CASE
        WHEN :keep AND claim IS NOT NULL THEN ready_at
        WHEN claim IS NULL AND :take IS NOT NULL THEN :claimed
        WHEN inbox_last > max(inbox_read, coalesce(:consume_to, inbox_read)) THEN :now
    END,
    claim = CASE WHEN claim IS NULL THEN :take WHEN :keep THEN claim END,
    worker = CASE WHEN claim IS NOT NULL THEN iif(:keep, worker, NULL) WHEN :take IS NOT NULL THEN :worker END,
    crashes = 0, blocked_reason = NULL, blocked_count = 0 WHERE run_id = :run_id
  AND tasks = :tasks AND events = :events AND digest = :digest
  AND (claim IS :claim OR :claim = '*') AND closed_at IS NULL
  AND status = :status
RETURNING ready_at;

-- name: advance_and_mark(run_id, tasks, events, digest, claim, status, new_tasks, new_events, new_digest, consume_to,
--     keep, now, take, worker, claimed)
-- The same when the status changes: blocked to running, running to cancelling.
UPDATE runs
SET tasks = :new_tasks, events = :new_events, digest = :new_digest,
    inbox_read = max(inbox_read, min(coalesce(:consume_to, inbox_read), inbox_last)),
    ready_at = CASE
        WHEN :keep AND claim IS NOT NULL THEN ready_at
        WHEN claim IS NULL AND :take IS NOT NULL THEN :claimed
        WHEN inbox_last > max(inbox_read, coalesce(:consume_to, inbox_read)) THEN :now
    END,
    claim = CASE WHEN claim IS NULL THEN :take WHEN :keep THEN claim END,
    worker = CASE WHEN claim IS NOT NULL THEN iif(:keep, worker, NULL) WHEN :take IS NOT NULL THEN :worker END,
    crashes = 0, blocked_reason = NULL, blocked_count = 0, status = :status WHERE run_id = :run_id
  AND tasks = :tasks AND events = :events AND digest = :digest
  AND (claim IS :claim OR :claim = '*') AND closed_at IS NULL
RETURNING ready_at;

-- name: close(run_id, tasks, events, digest, claim, status, new_tasks, new_events, new_digest, inbox_seen, outcome,
--     now)
-- The last workflow task, refused when messages came that it has not seen.
UPDATE runs
SET tasks = :new_tasks, events = :new_events, digest = :new_digest, status = :status, closed_at = :now,
    outcome = :outcome, inbox_read = inbox_last, ready_at = NULL, claim = NULL, worker = NULL, crashes = 0,
    blocked_reason = NULL, blocked_count = 0, terminate = NULL WHERE run_id = :run_id
  AND tasks = :tasks AND events = :events AND digest = :digest
  AND (claim IS :claim OR :claim = '*') AND closed_at IS NULL
  AND (:inbox_seen IS NULL OR inbox_last = :inbox_seen)
RETURNING chain_id, inbox_last;

-- name: fence(run_id)
-- Why a conditional update found nothing.
SELECT status, tasks, events, digest, claim FROM runs WHERE run_id = :run_id;

-- name: insert_history(run_id, task, first_event, at, data, digest)
INSERT INTO history VALUES (:run_id, :task, :first_event, :at, :data, :digest);

-- name: has_history(run_id, task, digest)
SELECT 1 FROM history WHERE run_id = :run_id AND task = :task AND digest = :digest;

-- name: consume(run_id, consume_to)
DELETE FROM inbox WHERE run_id = :run_id AND number <= :consume_to;

-- name: drop_activities(run_id)
DELETE FROM activities WHERE run_id = :run_id;

-- name: drop_timers(run_id)
DELETE FROM timers WHERE run_id = :run_id;

-- name: drop_inbox(run_id)
DELETE FROM inbox WHERE run_id = :run_id;

-- name: drop_keys(chain_id)
DELETE FROM message_keys WHERE chain_id = :chain_id;

-- name: target(run_id)
-- What a delivery must know of its run.
SELECT run_id, chain_id, status, inbox_last, inbox_read, ready_at, claim FROM runs WHERE run_id = :run_id;

-- name: target_of_workflow(workflow_id)
SELECT run_id, chain_id, status, inbox_last, inbox_read, ready_at, claim
FROM runs WHERE workflow_id = :workflow_id ORDER BY number DESC LIMIT 1;

-- name: has_key(chain_id, key)
SELECT 1 FROM message_keys WHERE chain_id = :chain_id AND key = :key;

-- name: insert_key(chain_id, key)
INSERT OR IGNORE INTO message_keys VALUES (:chain_id, :key);

-- name: insert_message(run_id, number, data)
INSERT INTO inbox VALUES (:run_id, :number, :data);

-- name: count_message(run_id, number)
-- A message for a run that somebody holds.
UPDATE runs SET inbox_last = :number WHERE run_id = :run_id;

-- name: wake(run_id, number, ready_at, claim, worker)
-- A message for a run that nobody holds: it becomes ready, or is claimed by the engine that delivers.
UPDATE runs
SET inbox_last = :number, ready_at = :ready_at, claim = :claim, worker = :worker WHERE run_id = :run_id;

-- name: block(run_id, tasks, events, digest, claim, reason, retry_at)
UPDATE runs
SET status = 'blocked', blocked_reason = :reason, blocked_count = blocked_count + 1,
    ready_at = :retry_at, claim = NULL, worker = NULL, crashes = 0 WHERE run_id = :run_id
  AND tasks = :tasks AND events = :events AND digest = :digest
  AND (claim IS :claim OR :claim = '*')
  AND closed_at IS NULL;

-- name: release(run_id, claim, ready, now)
UPDATE runs
SET ready_at = CASE WHEN :ready OR inbox_last > inbox_read THEN :now END, claim = NULL, worker = NULL
WHERE run_id = :run_id AND claim = :claim AND closed_at IS NULL;

-- name: request_terminate(run_id, reason, now)
-- Whoever holds the run loses it, so that code that never returns cannot keep it. One that has continued as new is
-- followed to the open run of its chain.
UPDATE runs SET terminate = :reason, ready_at = :now, claim = NULL, worker = NULL WHERE run_id = (
    SELECT run.run_id FROM runs AS asked JOIN runs AS run ON run.workflow_id = asked.workflow_id
    WHERE asked.run_id = :run_id AND run.chain_id = asked.chain_id AND run.closed_at IS NULL
      AND (run.run_id = asked.run_id OR asked.status = 'continued_as_new')
);

-- name: forget_run(run_id)
DELETE FROM runs WHERE run_id = :run_id AND closed_at IS NOT NULL;

-- name: forget_history(run_id)
DELETE FROM history WHERE run_id = :run_id;
