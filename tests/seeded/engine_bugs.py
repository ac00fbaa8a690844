"""Bugs of the engine: what it does with claims, attempts, commits and trouble."""

from tests.seeded.bug import Bug, Edit

COMMITS = "faults/test_every_commit_may_fail.py"
OUTAGES = "engine/test_outages.py"

BUGS = [
    Bug(
        "R07",
        "nothing wakes an idle engine for a retry",
        "G19",
        (
            Edit("engine/engine.py", "return self.until(taken.first_at)", "return 3600.0"),
            Edit("engine/engine.py", "return min(self.until(), _SOON)", "return 3600.0"),
        ),
        ("activities/test_retries.py::test_an_idle_engine_wakes_for_a_retry_on_the_machines_clock",),
    ),
    Bug(
        "R08",
        "a timeout is the end, whatever the retry policy says",
        "G20",
        (
            Edit(
                "engine/outcomes.py",
                "    if due is not None and row.claim is not None:\n",
                '    if failure.kind == "timeout":\n        due = None\n    if due is not None and row.claim is not None:\n',
            ),
        ),
        ("activities/test_timeouts.py::test_a_timeout_of_one_attempt_asks_the_policy_and_holds_for_later_attempts",),
    ),
    Bug(
        "R12",
        "a run that cannot go on ends the engine's worker instead of being blocked",
        "G29",
        (
            Edit(
                "engine/workflow_worker.py",
                "        if job.error is not None:\n            self._block(run, job.facts, job.error)\n",
                "        if job.error is not None:\n            raise job.error\n",
            ),
        ),
        ("engine/test_blocked_runs.py::test_broken_code_blocks_its_runs_and_no_others_and_fixed_code_goes_on",),
    ),
    Bug(
        "R13",
        "an activity that raises SystemExit takes more along than its attempt",
        "G39",
        (
            Edit(
                "engine/activity_worker.py",
                "        except BaseException as exc:\n            outcome = self._outcome_of(attempt, exc)\n",
                "        except Exception as exc:\n            outcome = self._outcome_of(attempt, exc)\n",
            ),
        ),
        ("engine/test_retries.py::test_whatever_an_activity_raises_only_its_attempt_fails",),
    ),
    Bug(
        "R14",
        "backoff overflows",
        "G22",
        (Edit("journal/policies.py", "    if exponent + math.log2(rule.initial) >= 62:\n", "    if exponent < 0:\n"),),
        ("activities/test_retries.py::test_backoff_is_total_bounded_and_never_decreases",),
    ),
    Bug(
        "R15",
        "the idempotency key holds the attempt and not the run",
        "G18",
        (
            Edit(
                "activity_context.py",
                'return f"{self.run_id}:{self._row.activity}"',
                'return f"{self._row.activity}:{self.attempt}"',
            ),
        ),
        ("activities/test_context.py::test_the_idempotency_key_is_the_same_for_all_attempts_and_unique_across_runs",),
    ),
    Bug(
        "R17",
        "a full cache stops the engine from taking runs",
        "G39",
        (
            Edit(
                "engine/workflow_worker.py",
                "            await self.turns.room()\n",
                "            await self.turns.room()\n"
                "            while len(self.runs) >= self.runs.capacity:\n"
                "                await asyncio.sleep(0.01)\n",
            ),
        ),
        ("engine/test_sleepers.py::test_a_full_cache_stops_no_run",),
    ),
    Bug(
        "R24",
        "waiting for a run that does not exist waits for ever",
        "G39",
        (
            Edit(
                "client.py",
                "        if row is None or row.workflow_id != id:\n",
                "        while row is None:\n            await asyncio.sleep(1)\n        if row.workflow_id != id:\n",
            ),
        ),
        ("client/test_results.py::test_a_run_that_does_not_exist_is_not_found",),
    ),
    Bug(
        "R25",
        "a worker that finds its turn refused is ended by it",
        "G13",
        (
            Edit(
                "engine/workflow_worker.py",
                "            self._refused(turn, result)\n            return\n",
                "            raise RuntimeError(result)\n",
            ),
        ),
        ("engine/test_two_engines.py::test_a_worker_whose_turn_is_refused_reads_the_run_again_and_goes_on",),
    ),
    Bug(
        "R29",
        "one transient error of the store ends a worker's question for good",
        "G39",
        (Edit("outages.py", "            outage.began(what, exc)\n", "            raise\n"),),
        (f"{OUTAGES}::test_an_engine_starts_as_soon_as_the_store_is_there",),
    ),
    Bug(
        "M33",
        "one transition that the store cannot take fails the whole batch",
        "G39",
        (Edit("committer.py", "                if len(batch) > 1:\n", "                if len(batch) > 10**9:\n"),),
        (f"{OUTAGES}::test_what_the_store_refuses_for_good_takes_nothing_with_it_that_shares_its_commit",),
    ),
    Bug(
        "M34",
        "a caller that goes away takes the shared commit with it",
        "G10",
        (
            Edit(
                "committer.py",
                "        return await future\n",
                "        if self._task is not None:\n            await self._task\n        return await future\n",
            ),
        ),
        ("faults/test_unknown_outcomes.py::test_a_caller_that_goes_away_takes_nobody_along",),
    ),
    Bug(
        "M35",
        "an activity starts before the commit that schedules it is known",
        "G17",
        (
            Edit(
                "engine/workflow_worker.py",
                "        reservation.give_back() if result.repeated else reservation.start()\n",
                "",
            ),
            Edit(
                "engine/workflow_worker.py",
                "        self._engine.submit(plan.transition, partial(self.settle, turn, plan))\n",
                "        plan.reservation.start()\n        self._engine.submit(plan.transition, partial(self.settle, turn, plan))\n",
            ),
        ),
        (f"{COMMITS}::test_a_fault_at_any_commit_changes_no_outcome",),
    ),
    Bug(
        "M36",
        "an unknown outcome is taken for a failure",
        "G10",
        (
            Edit(
                "committer.py",
                '                self.outage.began("commit", exc)\n',
                '                self.outage.began("commit", exc)\n'
                '                if exc.outcome == "unknown":\n'
                "                    for item in batch:\n"
                "                        _tell(item, exc)\n"
                "                    return\n",
            ),
        ),
        (f"{OUTAGES}::test_a_lost_answer_starts_a_run_once_all_the_same",),
    ),
    Bug(
        "M37",
        "an unknown outcome is taken for a success",
        "G10",
        (
            Edit(
                "committer.py",
                '                self.outage.began("commit", exc)\n',
                '                self.outage.began("commit", exc)\n'
                '                if exc.outcome == "unknown":\n'
                "                    for item in batch:\n"
                "                        _tell(item, Receipt())\n"
                "                    return\n",
            ),
        ),
        (
            f"{OUTAGES}::test_a_lost_answer_starts_a_run_once_all_the_same",
            f"{COMMITS}::test_a_fault_at_any_commit_changes_no_outcome[error_before]",
        ),
    ),
    Bug(
        "M41",
        "only hints wake a worker: what the store gives no hint of is never looked at",
        "G38",
        (
            Edit(
                "engine/engine.py",
                "self.poll_interval = min(_SELDOM, self._lease_seconds)",
                "self.poll_interval = 1e6",
            ),
        ),
        ("engine/test_engine_life.py::test_an_engine_that_hears_no_hint_finds_its_work_all_the_same",),
    ),
    Bug(
        "M42",
        "the lease is renewed on the loop that user code may block",
        "G14",
        (
            Edit(
                "engine/lease.py",
                '        self._thread = threading.Thread(target=self._keep_there, name="derecho-lease", daemon=True)\n'
                "        self._thread.start()\n",
                "",
            ),
        ),
        ("engine/test_engine_life.py::test_an_engine_whose_loop_is_blocked_is_not_taken_for_dead",),
    ),
    Bug(
        "M43",
        "two engines of one name are one to the store",
        "G16",
        (
            Edit(
                "engine/engine.py",
                "            self._running = True\n            self.incarnation = secrets.token_hex(16)\n",
                "            self._running = True\n            self.incarnation = self.worker_id\n",
            ),
        ),
        ("engine/test_two_engines.py::",),
    ),
    Bug(
        "M54",
        "a late result of a superseded attempt counts",
        "G17",
        (
            Edit(
                "engine/outcomes.py",
                "    return fact, FinishActivity(row.run_id, row.activity, row.claim)\n\n\ndef cancelled",
                "    return fact, CancelActivity(row.run_id, row.activity)\n\n\ndef cancelled",
            ),
            Edit(
                "engine/outcomes.py", "import Change, FinishActivity,", "import CancelActivity, Change, FinishActivity,"
            ),
        ),
        (
            "activities/test_timeouts.py::test_the_result_of_a_superseded_attempt_is_refused_by_its_claim",
            "activities/test_timeouts.py::test_a_result_that_comes_after_its_timeout_changes_nothing",
        ),
    ),
    Bug(
        "M55",
        "a run that kills its workers is tried for ever",
        "G30",
        (Edit("engine/blocking.py", "QUARANTINE_AFTER = 3", "QUARANTINE_AFTER = 10**6"),),
        ("engine/test_quarantine.py::test_after_three_deaths_it_is_set_aside_until_a_signal_comes",),
    ),
    Bug(
        "M56",
        "a loaded history is not verified",
        "G8",
        (
            Edit(
                "journal/wire.py",
                "        if row.digest != digest:\n            raise",
                "        if False:\n            raise",
            ),
            Edit("journal/wire.py", "    if head is not None and digest != head:\n", "    if False:\n"),
        ),
        ("engine/test_damaged_histories.py::test_a_damaged_history_is_not_replayed",),
    ),
    Bug(
        "M57",
        "code that holds its thread is waited for",
        "G33",
        (
            Edit(
                "engine/engine.py",
                "WorkflowWorker(self, self._cache_size, self._deadlock_timeout)",
                "WorkflowWorker(self, self._cache_size, None)",
            ),
        ),
        ("engine/test_hard_ends.py::test_code_that_holds_the_thread_is_blocked_with_its_line_and_others_go_on",),
    ),
    Bug(
        "M58",
        "facts in hand for a refused turn are dropped",
        "G38",
        (
            Edit(
                "engine/workflow_worker.py",
                "        for fact in (*facts, *run.facts):\n            self.deliver_direct(run.identity.run_id, fact)\n",
                "",
            ),
        ),
        (f"{COMMITS}::test_a_fault_at_any_commit_changes_no_outcome[error_after]",),
    ),
    Bug(
        "M59",
        "the heartbeat of an attempt does not push its deadline",
        "G21",
        (
            Edit(
                "engine/heartbeats.py",
                "row.started_at or beat_at, beat_at)",
                "row.started_at or beat_at, row.started_at or beat_at)",
            ),
        ),
        ("activities/test_heartbeats.py::test_beats_keep_an_attempt_alive_and_silence_ends_it",),
    ),
]
