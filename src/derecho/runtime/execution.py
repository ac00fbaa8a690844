"""One live run: an activation's facts in, commands out.

The same object serves the first execution and replay. While replaying, every command is matched with the recorded one
as it is asked for, and code sees exactly the facts and the time of that workflow task. What cannot go on (history and
code differ, an unreadable payload, a programming error) leaves `activate` as an exception; the engine blocks the run.
"""

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, assert_never

from derecho.clock import SECOND, to_datetime
from derecho.errors import DerechoError, DeterminismError
from derecho.journal import events as ev
from derecho.journal.failures import activity_error
from derecho.journal.payloads import Converter, Payload
from derecho.runtime.channels import SignalBuffer
from derecho.runtime.closing import ClosingRules
from derecho.runtime.handles import (
    ActivityFuture,
    CallbackTimer,
    PendingFuture,
    ResultFuture,
    StepFuture,
    Timer,
)
from derecho.runtime.loop import ControlSignal, Fiber, Future, LoopHandle, new_loop
from derecho.runtime.matching import Matcher
from derecho.runtime.source import caller
from derecho.runtime.unwind import unwind


class StepRequest:
    """A step to run in this worker, once the commit that records it is known."""

    __slots__ = ("fn", "future", "options")

    def __init__(self, future: StepFuture[Any], fn: Callable[[], Coroutine[Any, Any, Any]], options: Any) -> None:
        self.future = future
        self.fn = fn
        self.options = options


Main = Callable[["Execution", ev.WorkflowStarted], Coroutine[Any, Any, Payload]]
"""Makes the coroutine of the main fiber: decodes the input, calls the author's function, encodes its result."""


class Execution:
    """The state of one run's code.

    `events` counts the events of finished workflow tasks; `pending` maps the event id of a command to what waits for
    its outcome; `commands` are those of the task at hand.
    """

    def __init__(
        self,
        main: Main,
        *,
        workflow_id: str,
        run_id: str,
        converter: Converter,
        rules: ClosingRules,
    ) -> None:
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.converter = converter
        self.rules = rules
        self.seed = hashlib.blake2b(run_id.encode(), digest_size=8).digest()
        self.loop = new_loop(self, int.from_bytes(self.seed[:4], "big"))
        self.started: ev.WorkflowStarted | None = None
        self.events = 0
        self.tasks = 0
        self.at = 0
        self.replaying = False
        self.closing = False
        self.cancel: ev.CancelRequested | None = None
        self.pending: dict[int, PendingFuture[Any] | CallbackTimer] = {}
        self.commands: list[ev.CommandEvent] = []
        self.steps: dict[int, StepRequest] = {}
        self.signals: dict[str, SignalBuffer] = {}
        self.patches: dict[str, bool] = {}
        self.outcome: ev.CommandEvent | None = None
        self._main = main
        self._matcher: Matcher | None = None
        self._first_command = 0
        self._active = False
        self._conditions: list[tuple[Callable[[], bool], Future[bool]]] = []

    # --- one workflow task -------------------------------------------------------------------------------------------

    def activate(
        self, facts: Sequence[ev.Fact], at: int, recorded: Sequence[ev.CommandEvent] | None = None
    ) -> list[ev.CommandEvent]:
        """Hand facts to the run and let its code go until every fiber waits; returns the commands it asked for.

        Args:
            at: the workflow's time during this task, in microseconds; never before the last task's.
            recorded: on replay, the commands that history has for this task.
        """
        self.tasks += 1
        self.at = max(self.at, at)
        if self.started is not None:
            # asyncio's clock counts from the start of the run, so that floats keep their microseconds.
            self.loop.seconds = (self.at - self.started.at) / SECOND
        self.replaying = recorded is not None
        self.commands = []
        self._first_command = self.events + len(facts) + 2  # behind the facts and the WorkflowTaskCompleted
        self._matcher = None
        if recorded is not None:
            self._matcher = Matcher(recorded, self._first_command, self.tasks, f"workflow {self.workflow_id!r}")
        self._active = True
        try:
            for fact in facts:
                self._apply(fact)
            self._run()
            if self.loop.broken is None and self.loop.main is not None and self.loop.main.done():
                self._close(self.loop.main)
            if self._matcher is not None and self.loop.broken is None:
                self._matcher.finish()
        except ControlSignal:
            if self.loop.broken is None:
                raise
        finally:
            self._active = False
        if self.loop.broken is not None:
            raise self.loop.broken
        self.events = self._first_command - 1 + (len(self.commands) if recorded is None else len(recorded))
        return self.commands

    def command(self, event: ev.CommandEvent) -> tuple[int, Any]:
        """Ask for something: gives its event id, and the event as it stands in history."""
        self._check_may_ask()
        if self._matcher is None:
            self.commands.append(event)
            return self._first_command + len(self.commands) - 1, event
        try:
            position, event = self._matcher.match(event)
        except DerechoError as exc:
            raise self.break_task(exc) from None
        self.commands.append(event)
        return self._first_command + position, event

    def break_task(self, reason: BaseException) -> ControlSignal:
        """This task cannot go on and `activate` will raise `reason`; raise what this gives to leave user code."""
        if self.loop.broken is None:
            self.loop.broken = reason
        return ControlSignal(f"this workflow task cannot go on: {reason}")

    def close(self) -> list[str]:
        """Take the code down without letting it act; gives the places of fibers that refuse to unwind."""
        self.closing = True
        self.loop.discard_ready()
        stuck = unwind(self.loop)
        self.loop.discard_ready()
        self.pending.clear()
        self._conditions.clear()
        return stuck

    def _check_may_ask(self) -> None:
        if self.closing:
            raise ControlSignal("this run is being taken out of memory: nothing it asks for counts")
        if not self._active:
            raise DeterminismError(
                f"a workflow context was used outside its workflow, at {caller(3)}: "
                "use it only in the coroutines of that run, not in threads, callbacks of other loops or activities"
            )

    def _run(self) -> None:
        loop = self.loop
        while True:
            loop.run_until_quiet()
            if loop.broken is not None or (loop.main is not None and loop.main.done()):
                return
            if not (self._conditions and self._wake_conditions()):
                return

    def _wake_conditions(self) -> bool:
        """Something ran, so look at each condition once; True when one came true."""
        woken = False
        waiting = []
        for predicate, future in self._conditions:
            if future.done():
                continue
            try:
                holds = predicate()
            except Exception as exc:
                future.set_exception(exc)
                woken = True
                continue
            if holds:
                future.set_result(True)
                woken = True
            else:
                waiting.append((predicate, future))
        self._conditions = waiting
        return woken

    # --- facts -------------------------------------------------------------------------------------------------------

    def _apply(self, fact: ev.Fact) -> None:
        match fact:
            case ev.ActivityCompleted():
                self._resolve(fact.activity, fact.result)
            case ev.ActivityFailed() | ev.ActivityTimedOut() | ev.ActivityCancelled():
                self._fail(fact.activity, fact)
            case ev.TimerFired():
                self._fire(fact)
            case ev.StepCompleted():
                self._resolve(fact.step, fact.result)
            case ev.StepFailed():
                self._fail(fact.step, fact)
            case ev.SignalReceived():
                self.buffer(fact.name).push(fact)
            case ev.CancelRequested():
                if self.cancel is None:
                    self.cancel = fact
                    if self.loop.main is not None:
                        self.loop.main.cancel(fact.reason)
            case ev.WorkflowStarted():
                self._start(fact)
            case (
                ev.ChildStarted()
                | ev.ChildRefused()
                | ev.ChildCompleted()
                | ev.ChildFailed()
                | ev.ChildCancelled()
                | ev.ChildTerminated()
                | ev.SignalDelivered()
                | ev.SignalUndelivered()
            ):
                raise DerechoError(f"this version of Derecho cannot act on {ev.kind(fact)!r}")
            case _:
                assert_never(fact)

    def _start(self, fact: ev.WorkflowStarted) -> None:
        self.started = fact
        self.loop.seconds = (self.at - fact.at) / SECOND
        self.loop.main = self.loop._context.run(self.loop.create_task, self._main(self, fact), name="main")

    def _resolve(self, event_id: int, payload: Payload) -> None:
        future = self.pending.pop(event_id, None)
        self.steps.pop(event_id, None)
        if not isinstance(future, ResultFuture) or future.done():
            return
        if isinstance(future, ActivityFuture) and future.cancel_asked:
            future.finish_cancel()
            return
        future.set_result(future.decode(payload))

    def _fail(
        self, event_id: int, fact: ev.ActivityFailed | ev.ActivityTimedOut | ev.ActivityCancelled | ev.StepFailed
    ) -> None:
        future = self.pending.pop(event_id, None)
        self.steps.pop(event_id, None)
        if not isinstance(future, ResultFuture) or future.done():
            return
        if isinstance(future, ActivityFuture) and future.cancel_asked:
            future.finish_cancel()
            return
        future.set_exception(activity_error(fact.failure, future.name, fact.attempt))
        future._log_traceback = False  # a failure nobody awaits is no fault of asyncio's

    def _fire(self, fact: ev.TimerFired) -> None:
        waiting = self.pending.pop(fact.timer, None)
        if isinstance(waiting, CallbackTimer):
            handle = waiting.handle
            handle.timer = None
            self.loop.call_soon(self._run_handle, handle)
        elif isinstance(waiting, Timer) and not waiting.done():
            waiting.set_result(to_datetime(fact.at))

    def _run_handle(self, handle: LoopHandle) -> None:
        if not handle.is_cancelled:
            context = handle.context if handle.context is not None else self.loop._context
            context.run(handle.callback, *handle.args)

    # --- what the context and the handles ask for --------------------------------------------------------------------

    def schedule_activity(self, event: ev.ActivityScheduled, decode: Callable[[Payload], Any]) -> ActivityFuture[Any]:
        event_id, _ = self.command(event)
        future: ActivityFuture[Any] = ActivityFuture(self, event_id, event.name, decode, event.on_cancel)
        self.pending[event_id] = future
        return future

    def schedule_step(
        self,
        event: ev.StepScheduled,
        decode: Callable[[Payload], Any],
        fn: Callable[[], Coroutine[Any, Any, Any]],
        options: Any,
    ) -> StepFuture[Any]:
        event_id, _ = self.command(event)
        future: StepFuture[Any] = StepFuture(self, event_id, event.name, decode)
        self.pending[event_id] = future
        self.steps[event_id] = StepRequest(future, fn, options)
        return future

    def schedule_timer(self, duration: int, summary: str, source: str) -> Timer:
        """A timer due `duration` microseconds from the workflow's now; at once, unrecorded, when not positive."""
        if duration <= 0:
            self._check_may_ask()
            timer = Timer(self, 0)
            self.loop.call_soon(_fire_now, timer, self.at)
            return timer
        event = ev.TimerScheduled(duration, self.at + duration, source=source, summary=summary)
        event_id, _ = self.command(event)
        timer = Timer(self, event_id)
        self.pending[event_id] = timer
        return timer

    def drop_timer(self, event_id: int) -> None:
        if self.pending.pop(event_id, None) is not None:
            self.command(ev.TimerCancelled(event_id, source=caller(2)))

    def start_callback_timer(self, delay: float, handle: LoopHandle) -> None:
        duration = max(1, round(delay * SECOND))
        event_id, _ = self.command(ev.TimerScheduled(duration, self.at + duration, source=caller(2)))
        handle.timer = event_id
        self.pending[event_id] = CallbackTimer(handle)

    def drop_callback_timer(self, handle: LoopHandle) -> None:
        if handle.timer is not None and not self.closing:
            self.drop_timer(handle.timer)

    def side_effect(self, compute: Callable[[], Payload], source: str) -> Payload:
        """Run `compute` once in the life of the run and record what it gave."""
        self._check_may_ask()
        value = compute() if self._matcher is None else Payload()
        _, event = self.command(ev.SideEffectRecorded(value, source=source))
        recorded: Payload = event.value
        return recorded

    def patched(self, change: str, source: str) -> bool:
        """True on new executions and where history has the marker; the answer is the same for the whole run."""
        known = self.patches.get(change)
        if known is None:
            self._check_may_ask()
            known = self._matcher is None or self._matcher.has_patch(change)
            if known:
                self.command(ev.PatchMarked(change, source=source))
            self.patches[change] = known
        return known

    def condition(self, predicate: Callable[[], bool]) -> Future[bool]:
        self._check_may_ask()
        future: Future[bool] = Future(loop=self.loop)
        self._conditions.append((predicate, future))
        return future

    def buffer(self, name: str) -> SignalBuffer:
        try:
            return self.signals[name]
        except KeyError:
            buffer = self.signals[name] = SignalBuffer(self, name)
            return buffer

    # --- the end -----------------------------------------------------------------------------------------------------

    def _close(self, main: Fiber[Payload]) -> None:
        unread = sum(len(buffer) for buffer in self.signals.values())
        try:
            outcome = self.rules.outcome(main, self.loop.fibers.values(), self.cancel, unread)
        except Exception as exc:
            self.loop.broken = exc
            return
        self.command(outcome)
        self.outcome = outcome


def _fire_now(timer: Timer, at: int) -> None:
    if not timer.done():
        timer.set_result(to_datetime(at))
