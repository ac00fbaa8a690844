-- A batch of transitions: read what it is about, decide in Python, write the difference if nothing has changed since.
-- Both are one statement each, whatever the size of the batch. Arrays of one kind are parallel.
-- OFFSET 0 keeps a look-up a look-up: by its index, even if the table was small when the plan was made.

-- name: load(now, run_ids, workflow_ids, followed, workers, leaving, task_runs, tasks, key_runs, run_keys,
--     key_workflows, workflow_keys, key_chains, chain_keys, activity_runs, activities, timer_runs, timers)
-- The newest run of each of `workflow_ids`, and of the workflow ids of the runs `followed`; all that the workers
-- `leaving` hold.
SELECT coalesce(:now::bigint, derecho.instant()) AS now,
    ARRAY(
        SELECT row(run.*) FROM (
            SELECT unnest(:run_ids::text[])
            UNION SELECT newest.run_id FROM (
                SELECT unnest(:workflow_ids::text[]) AS workflow_id
                UNION SELECT workflow_id FROM derecho.runs WHERE run_id = ANY (:followed::text[])
            ) AS wanted CROSS JOIN LATERAL (
                SELECT run_id FROM derecho.runs WHERE workflow_id = wanted.workflow_id ORDER BY number DESC LIMIT 1
            ) AS newest
            UNION SELECT run_id FROM derecho.live WHERE worker = ANY (:leaving::text[])
        ) AS wanted (run_id)
        CROSS JOIN LATERAL (SELECT * FROM derecho.run_rows WHERE run_id = wanted.run_id OFFSET 0) AS run
    ) AS runs,
    ARRAY(
        SELECT row(worker.worker, worker.name, worker.lease_until, worker.serves)
        FROM derecho.workers AS worker WHERE worker.worker = ANY (:workers::text[])
    ) AS workers,
    ARRAY(
        SELECT row(wanted.run_id, wanted.task, found.digest)
        FROM unnest(:task_runs::text[], :tasks::bigint[]) AS wanted (run_id, task) CROSS JOIN LATERAL (
            SELECT digest FROM derecho.history WHERE run_id = wanted.run_id AND task = wanted.task OFFSET 0
        ) AS found
    ) AS tasks,
    ARRAY(
        SELECT row(found.chain_id, found.key) FROM (
            SELECT run.chain_id, wanted.key
            FROM unnest(:key_runs::text[], :run_keys::text[]) AS wanted (run_id, key)
            CROSS JOIN LATERAL (SELECT chain_id FROM derecho.runs WHERE run_id = wanted.run_id OFFSET 0) AS run
            UNION SELECT newest.chain_id, wanted.key
            FROM unnest(:key_workflows::text[], :workflow_keys::text[]) AS wanted (workflow_id, key)
            CROSS JOIN LATERAL (
                SELECT chain_id FROM derecho.runs WHERE workflow_id = wanted.workflow_id ORDER BY number DESC LIMIT 1
            ) AS newest
            UNION SELECT * FROM unnest(:key_chains::text[], :chain_keys::text[])
        ) AS wanted CROSS JOIN LATERAL (
            SELECT * FROM derecho.message_keys WHERE chain_id = wanted.chain_id AND key = wanted.key OFFSET 0
        ) AS found
    ) AS keys,
    ARRAY(
        SELECT found.row
        FROM unnest(:activity_runs::text[], :activities::bigint[]) AS wanted (run_id, activity) CROSS JOIN LATERAL (
            SELECT row(activity.*, activity.xmin) FROM derecho.activities AS activity
            WHERE activity.run_id = wanted.run_id AND activity.activity = wanted.activity OFFSET 0
        ) AS found
        UNION ALL SELECT row(activity.*, activity.xmin)
        FROM derecho.activities AS activity WHERE activity.worker = ANY (:leaving::text[])
    ) AS activities,
    ARRAY(
        SELECT row(found.*)
        FROM unnest(:timer_runs::text[], :timers::bigint[]) AS wanted (run_id, timer) CROSS JOIN LATERAL (
            SELECT * FROM derecho.timers WHERE run_id = wanted.run_id AND timer = wanted.timer OFFSET 0
        ) AS found
    ) AS timers;

-- name: lock_workers(workers)
-- Before anything is read, when workers leave: nobody claims for them any more until this transaction has ended.
SELECT worker FROM derecho.workers WHERE worker = ANY (:workers::text[]) ORDER BY worker FOR UPDATE;

-- name: lock_runs(run_ids)
SELECT run_id FROM derecho.live WHERE run_id = ANY (:run_ids::text[]) ORDER BY run_id FOR NO KEY UPDATE;

-- name: write(now, unused, alive, run_ids, run_revisions, activity_runs, activities, activity_revisions, timer_runs,
--     timers, live_runs, history, messages, read, finished, scheduled, marked_runs, new_runs, opened, closed,
--     ended_chains, keys, started, dropped, workers, gone, forgotten)
-- Everything or nothing: the first part locks what was read, always in the same order, and compares; no other part
-- does anything unless `guard` holds. The `xmin` of a row is another one after every change of it. That of the row in
-- `live` stands for the open run's row in `runs` as well, because nothing changes the one there without the one here.
-- A batch that was decided without a look says by which instant (`now`, else NULL), which the clock must have reached,
-- and of which workflow ids there must be no run. `revision` is the `xmin` of all that was written; NULL: nothing was.
-- Parts that do nothing cost the server time, too. So there are shorter forms, which end before `marked` (runs go on)
-- and before `dropped` (runs begin or end), for batches that have nothing for the parameters behind.
-- The types that rows come in have the columns of their tables, in order.
WITH workers_locked AS MATERIALIZED (
    SELECT worker FROM derecho.workers WHERE worker = ANY (:alive::text[]) ORDER BY worker FOR KEY SHARE
), runs_locked AS MATERIALIZED (
    SELECT run_id, live.xmin AS revision FROM derecho.live
    WHERE run_id = ANY (:run_ids::text[]) AND (SELECT count(*) FROM workers_locked) >= 0
    ORDER BY run_id FOR NO KEY UPDATE
), activities_locked AS MATERIALIZED (
    SELECT run_id, activity, activities.xmin AS revision
    FROM unnest(:activity_runs::text[], :activities::bigint[]) AS wanted (run_id, activity)
    JOIN derecho.activities USING (run_id, activity) WHERE (SELECT count(*) FROM runs_locked) >= 0
    ORDER BY run_id, activity FOR UPDATE OF activities
), timers_locked AS MATERIALIZED (
    SELECT run_id FROM unnest(:timer_runs::text[], :timers::bigint[]) AS wanted (run_id, timer)
    JOIN derecho.timers USING (run_id, timer) WHERE (SELECT count(*) FROM activities_locked) >= 0
    ORDER BY run_id, timer FOR UPDATE OF timers
), guard AS MATERIALIZED (
    SELECT (SELECT count(*) FROM workers_locked) = cardinality(:alive::text[])
        AND (SELECT count(*) FROM runs_locked JOIN unnest(:run_ids::text[], :run_revisions::xid[])
            AS seen (run_id, revision) USING (run_id, revision)) = cardinality(:run_ids::text[])
        AND (SELECT count(*) FROM activities_locked
            JOIN unnest(:activity_runs::text[], :activities::bigint[], :activity_revisions::xid[])
            AS seen (run_id, activity, revision) USING (run_id, activity, revision)) = cardinality(:activities)
        AND (SELECT count(*) FROM timers_locked) = cardinality(:timers::bigint[])
        AND coalesce(:now::bigint <= derecho.instant(), true)
        AND NOT EXISTS (SELECT FROM unnest(:unused::text[]) AS wanted (workflow_id) CROSS JOIN LATERAL (
            SELECT FROM derecho.runs WHERE runs.workflow_id = wanted.workflow_id LIMIT 1) AS run) AS holds
), woken AS (
    UPDATE derecho.live AS run
    SET tasks = new.tasks, events = new.events, digest = new.digest, inbox_last = new.inbox_last,
        inbox_read = new.inbox_read, ready_at = new.ready_at, claim = new.claim, worker = new.worker,
        crashes = new.crashes, blocked_reason = new.blocked_reason, blocked_count = new.blocked_count,
        terminate = new.terminate, home = new.home FROM unnest(:live_runs::derecho.live_run_1[]) AS new
    WHERE run.run_id = new.run_id AND run.run_id = ANY (:run_ids::text[]) AND (SELECT holds FROM guard)
), recorded AS (
    INSERT INTO derecho.history
    SELECT new.* FROM unnest(:history::derecho.history_row_1[]) AS new WHERE (SELECT holds FROM guard)
), consumed AS (
    DELETE FROM derecho.inbox AS message USING unnest(:read::derecho.place_1[]) AS upto
    WHERE message.run_id = upto.run_id AND message.run_id = ANY (:run_ids::text[])
      AND message.number <= upto.number AND (SELECT holds FROM guard)
), delivered AS (
    INSERT INTO derecho.inbox SELECT new.* FROM unnest(:messages::derecho.message_1[]) AS new
    WHERE (SELECT holds FROM guard)
), finished AS (
    DELETE FROM derecho.activities AS activity USING unnest(:finished::derecho.place_1[]) AS old
    WHERE activity.run_id = old.run_id AND activity.activity = old.number AND (SELECT holds FROM guard)
), scheduled AS (
    INSERT INTO derecho.activities
    SELECT new.* FROM unnest(:scheduled::derecho.activity_1[]) AS new WHERE (SELECT holds FROM guard)
    ON CONFLICT (run_id, activity) DO UPDATE SET
        workflow_id = excluded.workflow_id, workflow_type = excluded.workflow_type, name = excluded.name,
        queue = excluded.queue, data = excluded.data, scheduled_at = excluded.scheduled_at, due_at = excluded.due_at,
        attempt = excluded.attempt, timeout_at = excluded.timeout_at, close_at = excluded.close_at,
        claim = excluded.claim, worker = excluded.worker, started_at = excluded.started_at,
        heartbeat = excluded.heartbeat, last_failure = excluded.last_failure,
        cancel_requested = excluded.cancel_requested, lost = excluded.lost
), marked AS (
    UPDATE derecho.runs AS run
    SET status = new.status, closed_at = new.closed_at, tasks = new.tasks, events = new.events, digest = new.digest,
        inbox_last = new.inbox_last, outcome = new.outcome FROM unnest(:marked_runs::derecho.run_1[]) AS new
    WHERE run.run_id = new.run_id AND run.run_id = ANY (:run_ids::text[]) AND (SELECT holds FROM guard)
    RETURNING run.run_id
), created AS (  -- behind `marked`, because a run that continues as new closes first
    INSERT INTO derecho.runs SELECT new.* FROM unnest(:new_runs::derecho.run_1[]) AS new
    WHERE (SELECT holds FROM guard) AND (SELECT count(*) FROM marked) >= 0
), opened AS (
    INSERT INTO derecho.live
    SELECT new.* FROM unnest(:opened::derecho.live_run_1[]) AS new WHERE (SELECT holds FROM guard)
), closed AS (
    DELETE FROM derecho.live WHERE run_id = ANY (:closed::text[]) AND (SELECT holds FROM guard)
), closed_activities AS (
    DELETE FROM derecho.activities WHERE run_id = ANY (:closed::text[]) AND (SELECT holds FROM guard)
      AND (run_id, activity) NOT IN (SELECT run_id, activity FROM unnest(:scheduled::derecho.activity_1[]))
), closed_timers AS (
    DELETE FROM derecho.timers WHERE run_id = ANY (:closed::text[]) AND (SELECT holds FROM guard)
      AND (run_id, timer) NOT IN (SELECT run_id, timer FROM unnest(:started::derecho.timer_1[]))
), closed_inboxes AS (
    DELETE FROM derecho.inbox WHERE run_id = ANY (:closed::text[]) AND (SELECT holds FROM guard)
), ended AS (
    DELETE FROM derecho.message_keys WHERE chain_id = ANY (:ended_chains::text[]) AND (SELECT holds FROM guard)
      AND (chain_id, key) NOT IN (SELECT chain_id, key FROM unnest(:keys::derecho.key_1[]))
), remembered AS (
    INSERT INTO derecho.message_keys SELECT new.* FROM unnest(:keys::derecho.key_1[]) AS new
    WHERE (SELECT holds FROM guard) ON CONFLICT DO NOTHING
), started AS (
    INSERT INTO derecho.timers SELECT new.* FROM unnest(:started::derecho.timer_1[]) AS new
    WHERE (SELECT holds FROM guard) ON CONFLICT (run_id, timer) DO UPDATE SET fire_at = excluded.fire_at
), dropped AS (
    DELETE FROM derecho.timers AS timer USING unnest(:dropped::derecho.place_1[]) AS old
    WHERE timer.run_id = old.run_id AND timer.timer = old.number AND (SELECT holds FROM guard)
), registered AS (
    INSERT INTO derecho.workers SELECT new.* FROM unnest(:workers::derecho.worker_1[]) AS new
    WHERE (SELECT holds FROM guard) ON CONFLICT (worker) DO UPDATE
    SET name = excluded.name, lease_until = excluded.lease_until, serves = excluded.serves
), retired AS (
    DELETE FROM derecho.workers WHERE worker = ANY (:gone::text[]) AND (SELECT holds FROM guard)
), forgotten_history AS (
    DELETE FROM derecho.history WHERE run_id = ANY (:forgotten::text[]) AND (SELECT holds FROM guard)
), forgotten AS (
    DELETE FROM derecho.runs WHERE run_id = ANY (:forgotten::text[]) AND (SELECT holds FROM guard)
)
SELECT CASE WHEN holds THEN pg_current_xact_id()::xid END AS revision, derecho.instant() AS now FROM guard;
