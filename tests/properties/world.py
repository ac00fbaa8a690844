"""A world for one run without engine or store: it decides, from a seed, what happens next and hands it to the code.

Everything that the run asks for is kept here until its outcome is drawn: activities succeed, fail or time out, timers
fire in order, signals come when they like, someone may ask the run to end.
"""

import random
from typing import Any

from derecho.clock import SECOND
from derecho.journal import events as ev
from derecho.journal.failures import cancelled_failure, timeout_failure, to_failure
from derecho.journal.payloads import Converter
from derecho.journal.wire import encode_events
from derecho.runtime.execution import Execution
from tests.properties.language import SIGNALS, program

START = 1_700_000_000 * SECOND
MOST_TASKS = 400


class Task:
    """One workflow task as recorded: its facts, its time, the commands that they led to."""

    def __init__(self, facts: list[ev.Fact], at: int, commands: list[ev.CommandEvent]) -> None:
        self.facts = facts
        self.at = at
        self.commands = commands

    @property
    def text(self) -> str:
        return encode_events(self.commands)


class World:
    """One run of a program under a seed. `tasks` is its history, `outcome` how it ended."""

    def __init__(self, body: list[Any], seed: int) -> None:
        self.dice = random.Random(seed)
        self.converter = Converter()
        self.body = body
        self.at = START
        self.events = 0
        self.tasks: list[Task] = []
        self.open: dict[int, ev.CommandEvent] = {}
        self.cancelled: set[int] = set()
        self.asked_to_end = False
        self.signals = 0
        values = program.signature.encode([body, []], self.converter)
        self.started = ev.WorkflowStarted("program", "w", f"run-{seed}", START, values)

    def new_execution(self) -> Execution:
        return program.new_execution("w", self.started.run_id, self.converter)

    def live(self) -> ev.CommandEvent:
        """Run to the end; gives the outcome."""
        execution = self.new_execution()
        self._task(execution, [self.started])
        while execution.outcome is None:
            assert len(self.tasks) < MOST_TASKS, "the program does not end"
            self._task(execution, self._happen())
        execution.close()
        return execution.outcome

    def replayed(self, upto: int) -> Execution:
        """A cold execution that has seen the first `upto` workflow tasks."""
        execution = self.new_execution()
        for task in self.tasks[:upto]:
            execution.activate(task.facts, task.at, task.commands)
        return execution

    def _task(self, execution: Execution, facts: list[ev.Fact]) -> None:
        commands = list(execution.activate(facts, self.at))
        first = self.events + len(facts) + 2
        for event_id, command in enumerate(commands, first):
            self._keep(event_id, command)
        self.events = first - 1 + len(commands)
        self.tasks.append(Task(facts, self.at, commands))

    def _keep(self, event_id: int, command: ev.CommandEvent) -> None:
        match command:
            case ev.ActivityScheduled() | ev.TimerScheduled() | ev.StepScheduled() | ev.ChildScheduled():
                self.open[event_id] = command
            case ev.ActivityCancelRequested():
                self.cancelled.add(command.activity)
            case ev.TimerCancelled():
                self.open.pop(command.timer, None)
            case ev.ChildCancelRequested():
                self.cancelled.add(command.child)
            case _:
                pass

    def _happen(self) -> list[ev.Fact]:
        """One to four facts, drawn from what is possible now."""
        self.at += self.dice.randint(1, SECOND // 4)
        facts: list[ev.Fact] = []
        for _ in range(self.dice.randint(1, 4)):
            possible = [number for number, command in self.open.items() if not isinstance(command, ev.TimerScheduled)]
            if self.dice.random() < 0.1 or not (possible or self.open):
                facts.append(self._signal())
            elif possible and self.dice.random() < 0.8:
                facts.append(self._end(self.dice.choice(possible)))
            elif len(possible) < len(self.open):
                facts.append(self._fire())
        if not self.asked_to_end and self.dice.random() < 0.02:
            self.asked_to_end = True
            facts.append(ev.CancelRequested("enough", self.at))
        return facts or [self._signal()]

    def _signal(self) -> ev.Fact:
        self.signals += 1
        name = self.dice.choice(sorted(SIGNALS))
        return ev.SignalReceived(name, self.converter.encode(self.signals, "a signal"), self.at)

    def _fire(self) -> ev.Fact:
        """The timer that is due first; the world's clock goes there."""
        due = min(
            (command.fire_at, number) for number, command in self.open.items() if isinstance(command, ev.TimerScheduled)
        )
        self.at = max(self.at, due[0])
        del self.open[due[1]]
        return ev.TimerFired(due[1], due[0])

    def _end(self, number: int) -> ev.Fact:
        command = self.open.pop(number)
        payload = self.converter.encode(self.dice.randint(0, 99), "a result")
        luck = self.dice.random()
        match command:
            case ev.StepScheduled():
                if luck < 0.2:
                    return ev.StepFailed(number, to_failure(OSError("no luck")), self.at)
                return ev.StepCompleted(number, payload, self.at)
            case ev.ChildScheduled():
                if number in self.cancelled:
                    return ev.ChildCancelled(number, "asked for", self.at)
                if luck < 0.2:
                    return ev.ChildFailed(number, to_failure(KeyError("lost")), self.at)
                return ev.ChildCompleted(number, payload, self.at)
            case _:
                pass
        if number in self.cancelled and luck < 0.7:
            return ev.ActivityCancelled(number, cancelled_failure("asked for"), self.at)
        if luck < 0.2:
            return ev.ActivityFailed(number, to_failure(ValueError("no luck")), self.at)
        if luck < 0.25:
            return ev.ActivityTimedOut(number, "start_to_close", timeout_failure("start_to_close", "slow"), self.at)
        null = self.converter.encode(None, "a result")
        named_undo = isinstance(command, ev.ActivityScheduled) and command.name == "undo"
        return ev.ActivityCompleted(number, null if named_undo else payload, self.at)
