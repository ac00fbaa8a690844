"""Bugs of the stores."""

from tests.seeded.bug import Bug, Edit

MEMORY = "stores/test_memory_conformance.py"
SQLITE = "stores/test_sqlite_conformance.py"
POSTGRES = "stores/test_postgres_conformance.py"
RUNS, TASKS, STORE = "stores/memory/runs.py", "stores/memory/tasks.py", "stores/memory/store.py"

BUGS = [
    Bug(
        "R04",
        "messages that came while a task was decided are taken for read",
        "G3",
        (Edit(RUNS, "_consume(tables, run, change.consume_to)", "_consume(tables, run, run.inbox_last)"),),
        (f"{MEMORY}::test_a_run_with_unread_messages_stays_ready",),
    ),
    Bug(
        "R05",
        "a workflow task is committed without holding the claim",
        "G12",
        (Edit(RUNS, "    if claim != run.claim and claim != ch.ANY_CLAIM:\n", "    if not run:\n"),),
        (f"{MEMORY}::test_a_run_in_other_hands_does_not_advance",),
    ),
    Bug(
        "R06",
        "looking at due timers takes them",
        "G25",
        (
            Edit(
                STORE,
                "            return DueTimers([tables.timers[run_id][timer] for run_id, timer in places], next_at)\n",
                "            return DueTimers([tables.timers[run_id].pop(timer) for run_id, timer in places], next_at)\n",
            ),
        ),
        (f"{MEMORY}::test_a_look_takes_nothing",),
    ),
    Bug(
        "R06b",
        "looking at overdue activities takes them",
        "G20",
        (
            Edit(
                STORE,
                "rows += [model.OverdueActivity(tables.activities[run][number], lost=False) for run, number in places]",
                "rows += [model.OverdueActivity(tables.activities[run].pop(number), lost=False) for run, number in places]",
            ),
        ),
        (
            f"{MEMORY}::test_activities_past_their_deadline_are_told_soonest_first",
            f"{MEMORY}::test_a_look_takes_nothing",
            "activities/test_timeouts.py::test_a_timeout_of_one_attempt",
        ),
    ),
    Bug(
        "R08b",
        "the activities of a dead worker are never offered again",
        "G19",
        (Edit(TASKS, "    for held in _held_by(tables, change.worker):\n", "    for held in []:\n"),),
        (f"{MEMORY}::test_an_activity_of_a_dead_worker_is_lost_at_once",),
    ),
    Bug(
        "R09",
        "a superseded attempt may still end its activity",
        "G17",
        (Edit(TASKS, "    if row is None or row.claim != claim:\n", "    if row is None:\n"),),
        (f"{MEMORY}::test_only_the_holder_gives_an_outcome",),
    ),
    Bug(
        "R09b",
        "an attempt that is made due again keeps the deadline of the last one",
        "G20",
        (
            Edit(
                TASKS,
                "            timeout_at=change.timeout_at,\n            last_failure",
                "            timeout_at=row.timeout_at,\n            last_failure",
            ),
        ),
        (f"{MEMORY}::test_a_failed_attempt_is_due_again",),
    ),
    Bug(
        "R10",
        "a signal enters a run that has continued as new",
        "G3",
        (
            Edit(
                RUNS,
                '    if not run.is_open:\n        return _not_delivered(tables, change, ch.Conflict("closed"',
                '    if not run.is_open and run.status != "continued_as_new":\n        return _not_delivered(tables, change, ch.Conflict("closed"',
            ),
        ),
        (
            f"{MEMORY}::test_a_closed_run_conflicts_and_says_how_it_ended",
            "client/test_messages.py::",
            "workflows/test_continue_as_new.py::",
        ),
    ),
    Bug(
        "R11",
        "an engine is given runs of types that it does not serve",
        "G29",
        (Edit(STORE, "[queues[name] for name in set(types) if name in queues]", "list(queues.values())"),),
        (f"{MEMORY}::test_other_types_are_left",),
    ),
    Bug(
        "R18",
        "a child whose id is taken adopts the stranger",
        "G34",
        (
            Edit(
                RUNS,
                "        deliver(tables, change.refusal)\n        return\n",
                "        deliver(tables, change.acceptance or change.refusal)\n        return\n",
            ),
        ),
        (f"{MEMORY}::test_a_refused_child_tells_its_parent_and_an_accepted_one_too",),
    ),
    Bug(
        "R18b",
        "a request for a child reaches a stranger that has its id now",
        "G34",
        (Edit(RUNS, "    if run is None or change.chain_id not in (None, run.chain_id):\n", "    if run is None:\n"),),
        (
            f"{MEMORY}::test_a_chain_means_its_open_run_and_no_stranger_of_the_same_id",
            f"{MEMORY}::test_a_workflow_id_with_a_chain_means_a_run_of_that_chain",
        ),
    ),
    Bug(
        "R19",
        "a closed run can advance",
        "G7",
        (
            Edit(
                RUNS,
                '    if run.status not in OPEN:\n        raise stop("closed", run.status)\n    if run.tasks',
                "    if run.tasks",
            ),
        ),
        (f"{MEMORY}::test_a_closed_run_cannot_advance", "properties/test_stores_agree.py::"),
    ),
    Bug(
        "R19b",
        "a run that closes leaves its activities in the queue",
        "G38",
        (
            Edit(
                RUNS,
                "(tables.activities, tables.timers, tables.inbox, tables.terminate)",
                "(tables.timers, tables.inbox, tables.terminate)",
            ),
        ),
        (f"{MEMORY}::test_the_end_is_recorded_and_nothing_is_left_in_any_queue",),
    ),
    Bug(
        "R30",
        "a message enters a run that has closed, if it may be dropped",
        "G35",
        (
            Edit(
                RUNS,
                '    if not run.is_open:\n        return _not_delivered(tables, change, ch.Conflict("closed"',
                '    if not run.is_open and not change.drop:\n        return _not_delivered(tables, change, ch.Conflict("closed"',
            ),
        ),
        (f"{MEMORY}::test_what_may_be_dropped_is_dropped",),
    ),
    Bug(
        "M32",
        "the fence compares numbers of events, not what they are",
        "G13b",
        (Edit(RUNS, " or run.digest != seen.digest:\n", ":\n"),),
        (f"{MEMORY}::test_a_history_that_has_moved_is_not_continued",),
    ),
    Bug(
        "M33b",
        "a refused transition is not undone",
        "G9",
        (Edit("stores/memory/changes.py", "        tables.roll_back(mark)\n", ""),),
        (f"{MEMORY}::test_it_is_undone_with_its_transition", f"{MEMORY}::test_refused_it_has_no_effect"),
    ),
    Bug(
        "M33c",
        "in SQLite a refused transition is not undone",
        "G9",
        (Edit("stores/sqlite/transaction.py", "            raise _Redo\n", "            pass\n"),),
        (f"{SQLITE}::test_it_is_undone_with_its_transition", f"{SQLITE}::test_refused_it_takes_its_transition_with_it"),
    ),
    Bug(
        "M38",
        "in PostgreSQL nobody looks whether a run has changed between read and write",
        "G10",
        (
            Edit(
                "stores/sql/postgres/commit.sql",
                "AS seen (run_id, revision) USING (run_id, revision)",
                "AS seen (run_id, revision) USING (run_id)",
            ),
        ),
        (f"{POSTGRES}::test_commits_at_the_same_time_are_one_after_another", "postgres/test_pairs.py::"),
    ),
    Bug(
        "M39",
        "PostgreSQL's clock is that of the begin of the transaction",
        "G15",
        (
            Edit(
                "stores/sql/postgres/0001_tables.sql",
                "RETURN (extract(epoch FROM clock_timestamp())",
                "RETURN (extract(epoch FROM now())",
            ),
        ),
        ("postgres/test_schema.py::test_the_deciding_clock_moves_on_while_a_transaction_waits",),
    ),
    Bug(
        "M44",
        "a claim in PostgreSQL takes more runs than were asked for",
        "G12",
        (
            Edit(
                "stores/sql/postgres/work.sql",
                "ORDER BY picked.ready_at, picked.run_id LIMIT :limit - (SELECT count(*) FROM doomed)\n), suspect",
                "ORDER BY picked.ready_at, picked.run_id\n), suspect",
            ),
            Edit(
                "stores/sql/postgres/work.sql",
                "ORDER BY rank, ready_at, run_id LIMIT :limit;",
                "ORDER BY rank, ready_at, run_id;",
            ),
        ),
        (f"{POSTGRES}::test_the_longest_ready_come_first_and_no_more_than_asked_for",),
    ),
    Bug(
        "M45",
        "a write transaction in SQLite begins as a reader",
        "G12",
        (Edit("stores/sqlite/transaction.py", 'connection.execute("BEGIN IMMEDIATE")', 'connection.execute("BEGIN")'),),
        ("stores/test_sqlite_processes.py::", "stores/test_sqlite_outages.py::"),
    ),
    Bug(
        "M60",
        "a signal that is sent again under its key is received again",
        "G3",
        (
            Edit(
                RUNS,
                "change.message.key is not None and change.message.key in tables",
                "change.message.key is None and change.message.key in tables",
            ),
        ),
        (f"{MEMORY}::test_a_key_enters_once",),
    ),
    Bug(
        "M61",
        "a chain that goes on forgets the keys of its signals",
        "G3",
        (Edit(RUNS, "    if not change.continues:\n", "    if change:\n"),),
        (f"{MEMORY}::test_a_chain_that_goes_on_remembers_its_keys",),
    ),
    Bug(
        "M62",
        "a run closes over signals that it has not seen",
        "G3",
        (
            Edit(
                RUNS,
                "    if closing and change.inbox_seen is not None and change.inbox_seen != run.inbox_last:\n",
                "    if not run:\n",
            ),
        ),
        (f"{MEMORY}::test_a_run_does_not_close_over_messages_that_it_has_not_seen",),
    ),
    Bug(
        "M63",
        "a worker that was declared dead goes on with its runs",
        "G13",
        (Edit(TASKS, "    _free_runs(tables, change.worker, crashed=True)\n", ""),),
        (f"{MEMORY}::test_a_worker_that_was_declared_dead_can_write_nothing_of_its_runs",),
    ),
    Bug(
        "M64",
        "a run is given to a worker that is not registered, whose death nobody would notice",
        "G14",
        (
            Edit(
                STORE,
                "            if worker not in tables.workers:\n                return Taken([], first_at)  # nobody",
                "            if not worker:\n                return Taken([], first_at)  # nobody",
            ),
        ),
        (f"{MEMORY}::test_a_worker_that_is_not_registered_gets_nothing",),
    ),
    Bug(
        "M65",
        "timers fire a second early",
        "G24",
        (
            Edit(
                STORE,
                "tables.timer_queue.look(self.now(), limit)",
                "tables.timer_queue.look(self.now() + 1_000_000, limit)",
            ),
        ),
        (f"{MEMORY}::test_a_timer_is_not_due_before_its_instant",),
    ),
    Bug(
        "M66",
        "the clock of a store goes back with the machine's",
        "G15",
        (Edit(STORE, "            if now > self._last:\n", "            if now:\n"),),
        (f"{MEMORY}::test_the_clock_never_goes_back",),
    ),
    Bug(
        "M67",
        "a start that is done again opens a second run",
        "G2",
        (Edit(RUNS, "    if row.run_id in tables.runs:\n        raise Stop(REPEATED)\n", ""),),
        (f"{MEMORY}::test_creating_a_run_again_is_recognised_and_changes_nothing",),
    ),
    Bug(
        "M68",
        "two runs of one workflow id are open",
        "G2",
        (Edit(RUNS, "    if newest is not None and newest.is_open:\n", "    if newest is None and row is None:\n"),),
        (f"{MEMORY}::test_a_workflow_id_with_an_open_run_is_taken",),
    ),
    Bug(
        "M69",
        "the memory store forgets to wake who waits",
        "G38",
        (
            Edit(
                STORE,
                "            touched = tuple(tables.touched)\n        self._hints.bump(touched)\n        return results\n",
                "        return results\n",
            ),
        ),
        (f"{MEMORY}::test_who_waits_is_woken", "stores/test_hints_are_exact.py::"),
    ),
]
