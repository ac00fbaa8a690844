"""One live run: an activation's facts in, commands out.

The same object serves the first execution and replay. While replaying, every command is matched with the recorded one
as it is asked for, and code sees exactly the facts and the time of that workflow task. What cannot go on (history and
code differ, an unreadable payload, a programming error) leaves `activate` as an exception; the engine blocks the run.
"""

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from threading import get_ident
from typing import Any

from derecho.clock import FOREVER, SECOND, to_datetime
from derecho.errors import DerechoError, DeterminismError
from derecho.invocation import check_text
from derecho.journal import events as ev
from derecho.journal.failures import rebuild, to_failure
from derecho.journal.payloads import Converter, Payload
from derecho.runtime.channels import SignalBuffer
from derecho.runtime.closing import ClosingRules
from derecho.runtime.conditions import Conditions
from derecho.runtime.facts import apply
from derecho.runtime.handles import (
    ActivityFuture,
    CallbackTimer,
    CancelDeadline,
    ChildHandle,
    Decode,
    PendingFuture,
    Send,
    StepFuture,
    Timer,
)
from derecho.runtime.identity import derive_run_id
from derecho.runtime.loop import ControlSignal, Future, LoopHandle, new_loop
from derecho.runtime.matching import Matcher
from derecho.runtime.source import caller
from derecho.runtime.unwind import unwind

_PATIENCE = 50
"""Refusals after which code that catches them all gets futures that never end, so that it waits and can be left."""


class StepRequest:
    """A step to run in this worker, once the commit that records it is known."""

    __slots__ = ("fn", "future", "options")

    def __init__(self, future: StepFuture[Any], fn: Callable[..., Coroutine[Any, Any, Any]], options: Any) -> None:
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

    def __init__(self, main: Main, *, workflow_id: str, run_id: str, converter: Converter, rules: ClosingRules) -> None:
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
        self.pending: dict[int, PendingFuture[Any] | CallbackTimer | CancelDeadline] = {}
        self.children = 0
        self.on_cancel: list[Callable[[ev.CancelRequested], None]] = []
        self.cancel_delivered = False
        self.shields: set[object] = set()
        self.forced = False
        self.commands: list[ev.CommandEvent] = []
        self.steps: dict[int, StepRequest] = {}
        self.signals: dict[str, SignalBuffer] = {}
        self.patches: dict[str, bool] = {}
        self.outcome: ev.CommandEvent | None = None
        self._main = main
        self._matcher: Matcher | None = None
        self._first_command = 0
        self._active = 0  # the thread that its code has, while it counts what that asks for
        self._refusals = 0
        self._signal_count = 0
        self._conditions = Conditions()

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
        self._active = get_ident()
        try:
            for event_id, fact in enumerate(facts, self.events + 1):
                apply(self, fact, event_id)
            self._run()
            if self.loop.broken is None:
                self._close_if_over()
            if self._matcher is not None and self.loop.broken is None:
                self._matcher.finish()
        except ControlSignal:
            if self.loop.broken is None:
                raise
        finally:
            self._active = 0
        if self.loop.broken is not None:
            raise self.loop.broken
        self.events = self._first_command - 1 + (len(self.commands) if recorded is None else len(recorded))
        return self.commands

    def command(self, event: ev.CommandEvent) -> tuple[int, Any]:
        """Ask for something: gives its event id, and the event as it stands in history."""
        if not self._may_ask():
            return 0, event
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
        stuck = [] if self.is_over else unwind(self.loop)
        self.loop.discard_ready()
        self.loop.dissolve()
        self.pending.clear()
        self._conditions.clear()
        return stuck

    @property
    def is_over(self) -> bool:
        """Whether no code is left that could notice being taken down."""
        fibers = self.loop.fibers.values()
        return not self.loop.async_generators and all(fiber.done() and not fiber._log_traceback for fiber in fibers)

    def _may_ask(self) -> bool:
        """Raises unless what the code asks for counts; False when it has caught that so often that it would spin."""
        if self.closing or self.loop.broken is not None:
            self._refusals += 1
            if self._refusals <= _PATIENCE:
                raise ControlSignal("this run is being taken out of memory: nothing it asks for counts")
            return False
        self.check_inside()
        return True

    def check_inside(self) -> None:
        """Raises where a replay would not come by: what is asked or drawn there would be missing."""
        if self._active != get_ident() and not self.closing and self.loop.broken is None:
            raise DeterminismError(
                f"a workflow context was used outside its workflow, at {caller(2)}: use it only in the coroutines of "
                "that run, not in its steps and side effects, nor in threads, callbacks of other loops or activities"
            )

    def _run(self) -> None:
        loop = self.loop
        while True:
            loop.run_until_quiet()
            if loop.broken is not None or (loop.main is not None and loop.main.done()):
                return
            if not (self._conditions.waiting and self._conditions.wake()):
                return

    # --- facts (see runtime.facts) -----------------------------------------------------------------------------------

    def start(self, fact: ev.WorkflowStarted) -> None:
        self.started = fact
        self.loop.seconds = (self.at - fact.at) / SECOND
        self.loop.start_main(self._main(self, fact))

    def receive_signal(self, fact: ev.SignalReceived) -> None:
        self._signal_count += 1
        self.buffer(fact.name).push(self._signal_count, fact)

    def request_cancel(self, fact: ev.CancelRequested, event_id: int) -> None:
        """Deliver the first request once, to the main fiber; while the code is shielded it waits. All limits count."""
        if fact.limit is not None:
            self.pending[event_id] = CancelDeadline()
        if self.cancel is not None:
            return
        self.cancel = fact
        for notice in self.on_cancel:
            notice(fact)
        self.on_cancel.clear()
        self._deliver_cancel()

    def raise_shield(self) -> object:
        """Hold a request to cancel back until `lower_shield` is called with what this gives."""
        shield = object()
        self.shields.add(shield)
        return shield

    def lower_shield(self, shield: object) -> None:
        self.shields.discard(shield)
        if not self.closing:
            self._deliver_cancel()

    def _deliver_cancel(self) -> None:
        if self.cancel is not None and not self.cancel_delivered and not self.shields and self.loop.main is not None:
            self.cancel_delivered = True
            self.loop.main.cancel(self.cancel.reason)

    @property
    def unseen_cancel(self) -> ev.CancelRequested | None:
        """A request to cancel that the code has not met, because it was shielded or ended first."""
        main = self.loop.main
        met = self.cancel_delivered and main is not None and not main._must_cancel
        return None if met else self.cancel

    # --- what the context and the handles ask for --------------------------------------------------------------------

    def schedule_activity(self, event: ev.ActivityScheduled, decode: Decode) -> ActivityFuture[Any]:
        event_id, _ = self.command(event)
        future: ActivityFuture[Any] = ActivityFuture(self, event_id, event.name, decode, event.on_cancel)
        self.pending[event_id] = future
        return future

    def schedule_step(
        self, event: ev.StepScheduled, decode: Decode, fn: Callable[..., Coroutine[Any, Any, Any]], options: Any
    ) -> StepFuture[Any]:
        event_id, _ = self.command(event)
        future: StepFuture[Any] = StepFuture(self, event_id, event.name, decode)
        self.pending[event_id] = future
        self.steps[event_id] = StepRequest(future, fn, options)
        return future

    def schedule_child(self, event: ev.ChildScheduled, decode: Decode, send: Send) -> ChildHandle[Any]:
        event_id, recorded = self.command(event)
        child: ChildHandle[Any] = ChildHandle(self, event_id, recorded, decode, send)
        self.pending[event_id] = child
        return child

    def new_child_id(self) -> tuple[str, str]:
        """Workflow id and run id for the next child: the same on every replay, never those of another run."""
        self.children += 1
        return f"{self.run_id}/{self.children}", derive_run_id(self.run_id, self.children, self.at)

    def send_signal(self, event: ev.SignalSent) -> PendingFuture[None]:
        event_id, _ = self.command(event)
        future: PendingFuture[None] = PendingFuture(self, event_id)
        self.pending[event_id] = future
        return future

    def schedule_timer(self, duration: int, summary: str, source: str) -> Timer:
        """A timer due `duration` microseconds from the workflow's now; at once, unrecorded, when not positive."""
        if duration <= 0:
            self._may_ask()
            timer = Timer(self, 0)
            self.loop.call_soon(_fire_now, timer, self.at)
            return timer
        check_text(summary, "a summary")
        event = ev.TimerScheduled(duration, self.at + duration, source=source, summary=summary)
        event_id, _ = self.command(event)
        timer = Timer(self, event_id)
        self.pending[event_id] = timer
        return timer

    def drop_timer(self, event_id: int) -> None:
        if self.pending.pop(event_id, None) is not None:
            self.command(ev.TimerCancelled(event_id, source=caller(2)))

    def start_callback_timer(self, delay: float, handle: LoopHandle) -> None:
        if delay >= FOREVER / SECOND:
            return  # asyncio's way to say never
        duration = max(1, round(delay * SECOND))
        event_id, _ = self.command(ev.TimerScheduled(duration, self.at + duration, source=caller(2)))
        handle.timer = event_id
        self.pending[event_id] = CallbackTimer(handle)

    def drop_callback_timer(self, handle: LoopHandle) -> None:
        if handle.timer is not None and not self.closing:
            self.drop_timer(handle.timer)

    def side_effect(self, compute: Callable[[], Payload], source: str) -> Payload:
        """Run `compute` once in the life of the run and record what it gave, or what it raised."""
        self._may_ask()
        asked = ev.SideEffectRecorded(Payload(), source=source)
        if self._matcher is None:
            thread, self._active = self._active, 0
            try:
                asked = ev.SideEffectRecorded(compute(), source=source)
            except Exception as exc:
                asked = ev.SideEffectRecorded(Payload(), source=source, failure=to_failure(exc))
            except BaseException as exc:
                raise self.break_task(DeterminismError(f"a side effect at {source} raised {exc!r}")) from exc
            finally:
                self._active = thread
        _, event = self.command(asked)
        if event.failure is not None:
            raise rebuild(event.failure)
        recorded: Payload = event.value
        return recorded

    def patched(self, change: str, source: str) -> bool:
        """True on new executions and where history has the marker; the answer is the same for the whole run."""
        known = self.patches.get(change)
        if known is None:
            self._may_ask()
            known = self._matcher is None or self._matcher.has_patch(change)
            if known:
                self.command(ev.PatchMarked(change, source=source))
            self.patches[change] = known
        return known

    def condition(self, predicate: Callable[[], bool]) -> Future[bool]:
        self._may_ask()
        return self._conditions.add(predicate, Future(loop=self.loop))

    def buffer(self, name: str) -> SignalBuffer:
        try:
            return self.signals[name]
        except KeyError:
            buffer = self.signals[name] = SignalBuffer(self, name)
            return buffer

    # --- the end -----------------------------------------------------------------------------------------------------

    def _close_if_over(self) -> None:
        main = self.loop.main
        if main is None or not (main.done() or self.forced):
            return
        unread = sum(len(buffer.unread()) for buffer in self.signals.values()) if self.signals else 0
        if main.done():
            try:
                outcome = self.rules.outcome(main, self.loop, self.cancel, unread)
            except Exception as exc:
                self.loop.broken = exc
                return
        else:
            left = sum(not fiber.done() for fiber in self.loop.fibers.values())
            reason = self.cancel.reason if self.cancel is not None else ""
            outcome = ev.WorkflowCancelled(reason, unread=unread, fibers_left=left)
        self.command(outcome)
        self.outcome = outcome

    @property
    def continues(self) -> bool:
        return isinstance(self.outcome, ev.WorkflowContinuedAsNew)

    def open_children(self) -> list[ev.ChildScheduled]:
        """Children whose end this run has not seen."""
        return [item.scheduled for item in self.pending.values() if isinstance(item, ChildHandle)]

    def unread_signals(self) -> list[ev.SignalReceived]:
        """Signals that no fiber received, in the order in which they came."""
        waiting = [item for buffer in self.signals.values() for item in buffer.unread()]
        return [fact for _, fact in sorted(waiting, key=lambda item: item[0])]


def _fire_now(timer: Timer, at: int) -> None:
    if not timer.done():
        timer.set_result(to_datetime(at))
