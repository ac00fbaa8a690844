"""Bugs of replay, determinism and of what code sees."""

from tests.seeded.bug import Bug, Edit

GOLDEN = "reference/test_golden_histories.py"

BUGS = [
    Bug(
        "R01",
        "a replay sees signals that came later",
        "G27",
        (
            Edit(
                "replay.py",
                "                replay_task(execution, task.decode())\n",
                "                replay_task(execution, task.decode())\n"
                "                if task.task == 1:\n"
                "                    for event in [e for later in history.tasks[1:] for e in later.decode()]:\n"
                "                        if type(event).__name__ == 'SignalReceived':\n"
                "                            execution.receive_signal(event)\n",
            ),
            Edit(
                "runtime/facts.py",
                "            execution.receive_signal(fact)\n",
                "            if not execution.replaying or execution.tasks == 1:\n"
                "                execution.receive_signal(fact)\n",
            ),
        ),
        (f"{GOLDEN}::test_every_golden_history_replays[approval]",),
    ),
    Bug(
        "R02",
        "a replay has the time at which it takes place",
        "G26",
        (
            Edit(
                "replay.py",
                "execution.activate(facts, marker.at, recorded)",
                "execution.activate(facts, marker.at + 60_000_000, recorded)",
            ),
        ),
        (f"{GOLDEN}::test_code_asks_for_the_very_bytes",),
    ),
    Bug(
        "R03",
        "only the kind of a command is compared, not its name",
        "G28",
        (
            Edit(
                "runtime/matching.py",
                "type(recorded) is not type(command) or recorded.identity() != command.identity()",
                "type(recorded) is not type(command)",
            ),
        ),
        ("runtime/test_matching.py::test_an_edit_is_caught_at_its_event",),
    ),
    Bug(
        "R03b",
        "recorded commands that nobody asks for are accepted",
        "G28",
        (Edit("runtime/execution.py", "                self._matcher.finish()\n", "                pass\n"),),
        ("runtime/test_matching.py::test_an_edit_is_caught_at_its_event",),
    ),
    Bug(
        "R16",
        "only the first workflow task is replayed",
        "G26",
        (
            Edit(
                "replay.py",
                "for task in history.tasks:\n                replay",
                "for task in history.tasks[:1]:\n                replay",
            ),
        ),
        ("runtime/test_replay_by_task.py::test_the_whole_history_is_replayed_not_only_its_first_task",),
    ),
    Bug(
        "R21",
        "the losing case of a select goes on waiting and swallows the next signal",
        "G5",
        (Edit("runtime/selector.py", "                case.disarm()\n", "                pass\n"),),
        ("workflows/test_selectors.py::test_a_losing_case_swallows_no_signal_between_two_selects",),
    ),
    Bug(
        "R22",
        "eviction looks like a cancellation to the code",
        "G32",
        (
            Edit(
                "runtime/unwind.py",
                'coro.throw(ControlSignal("this run is taken out of memory"))',
                'coro.throw(asyncio.CancelledError("this run is taken out of memory"))',
            ),
        ),
        ("runtime/test_taking_down.py::test_clean_up_code_does_not_get_to_act",),
    ),
    Bug(
        "R22b",
        "what clean-up code asks for during eviction counts",
        "G32",
        (Edit("runtime/execution.py", "        self.closing = True\n", "        self._active = get_ident()\n"),),
        ("runtime/test_many_evictions.py::test_thousands_of_evictions_issue_no_command",),
    ),
    Bug(
        "R28",
        "a signal that cannot be decoded fails the run",
        "G29",
        (Edit("runtime/channels.py", "raise self.execution.break_task(exc) from None", "raise"),),
        ("runtime/test_signals.py::test_it_blocks_also_when_code_would_catch_it",),
    ),
    Bug(
        "R31",
        "commands that other fibers ask for after the end are recorded and carried out",
        "G7",
        (
            Edit(
                "runtime/decider.py",
                "        changes = leave_behind(run, first, commands, outcome, children, at)\n",
                "        for event_id, command in enumerate(commands, first):\n"
                "            _ask(run, event_id, command, at, changes, activities)\n"
                "        changes += leave_behind(run, first, commands, outcome, children, at)\n",
            ),
        ),
        (
            "workflows/test_parallelism.py::test_what_is_asked_for_in_the_task_of_the_end_is_recorded_and_not_carried_out",
        ),
    ),
    Bug(
        "R32",
        "a timer that has been cancelled may still fire, if it was on its way",
        "G25b",
        (Edit("engine/timer_worker.py", "row.timer, must_exist=True)", "row.timer)"),),
        ("workflows/test_timers.py::", "engine/test_two_engines.py::test_a_timer"),
    ),
    Bug(
        "R27",
        "each command looks at all that is pending",
        "G40",
        (
            Edit(
                "runtime/execution.py",
                "        if not self._may_ask():\n            return 0, event\n        if self._matcher is None:\n",
                "        if not self._may_ask() or any(item is event for item in list(self.pending.values())):\n"
                "            return 0, event\n        if self._matcher is None:\n",
            ),
        ),
        ("runtime/test_linear.py::",),
    ),
    Bug(
        "M46",
        "a run that leaves memory is merely dropped, for the garbage collector to find",
        "G32",
        (
            Edit("runtime/execution.py", "[] if self.is_over else unwind(self.loop)", "[] if self.is_over else []"),
            Edit("runtime/execution.py", "        self.closing = True\n", ""),
        ),
        ("runtime/test_taking_down.py::test_clean_up_code_does_not_get_to_act",),
    ),
    Bug(
        "M47",
        "fibers hash by their address",
        "G26",
        (
            Edit(
                "runtime/loop.py",
                '        super().__init__(coro, loop=loop, name=name or f"fiber-{loop.numbers}", context=context)\n\n    def __hash__(self) -> int:\n        return self._hash\n',
                '        super().__init__(coro, loop=loop, name=name or f"fiber-{loop.numbers}", context=context)\n\n    def __hash__(self) -> int:\n        return id(self) >> 4\n',
            ),
        ),
        (f"{GOLDEN}::test_heap_noise_gives_one_order_in_200_tries",),
    ),
    Bug(
        "M48",
        "a side effect gives the live object, and a replay gives its decoded copy",
        "G31",
        (
            Edit(
                "context.py",
                "        payload = self._execution.side_effect(lambda: encode_value(fn(), annotation, converter, what), caller(2))\n"
                "        return cast(R, decode_value(payload, annotation, converter, what))\n",
                "        kept: list[R] = []\n\n"
                "        def keep() -> R:\n"
                "            kept.append(fn())\n"
                "            return kept[0]\n\n"
                "        payload = self._execution.side_effect(lambda: encode_value(keep(), annotation, converter, what), caller(2))\n"
                "        return kept[0] if kept else cast(R, decode_value(payload, annotation, converter, what))\n",
            ),
        ),
        ("workflows/test_side_effects_and_steps.py::", "runtime/test_chance.py::", "runtime/test_outcomes.py::"),
    ),
    Bug(
        "M49",
        "facts of one task are handed over in the order of their kinds",
        "G26",
        (
            Edit(
                "runtime/execution.py",
                "            for event_id, fact in enumerate(facts, self.events + 1):\n",
                "            for event_id, fact in sorted(enumerate(facts, self.events + 1), key=lambda it: str(type(it[1]))):\n",
            ),
        ),
        ("runtime/test_replay_by_task.py::test_facts_of_all_kinds_wake_fibers_in_the_order_of_the_history",),
    ),
    Bug(
        "M50",
        "time goes back when the clock does",
        "G26",
        (Edit("runtime/execution.py", "        self.at = max(self.at, at)\n", "        self.at = at\n"),),
        ("runtime/test_replay_by_task.py::test_time_stands_still_while_code_runs_and_never_goes_back",),
    ),
    Bug(
        "M51",
        "random numbers are Python's own",
        "G26",
        (
            Edit(
                "context.py",
                "return ReplayRandom(self._execution.seed, self._execution.check_inside)\n",
                "return _random.Random()\n",
            ),
        ),
        (f"{GOLDEN}::test_every_golden_history_replays[order]", f"{GOLDEN}::test_code_asks_for_the_very_bytes"),
    ),
    Bug(
        "M52",
        "a marker of a patch that comes later answers yes now",
        "G28",
        (
            Edit(
                "runtime/execution.py",
                "known = self._matcher is None or self._matcher.has_patch(change)",
                "known = True",
            ),
        ),
        (f"{GOLDEN}::test_every_golden_history_replays[changed]",),
    ),
    Bug(
        "M53",
        "a cancelled receiver keeps the signal that it had been given",
        "G5",
        (Edit("runtime/channels.py", "            self.give_back()\n            raise\n", "            raise\n"),),
        ("runtime/test_signals.py::", "runtime/test_signals_in_chaos.py::"),
    ),
]
