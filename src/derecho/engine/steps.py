"""Steps: small durable closures that run in the worker of their run.

A step starts when the commit that records it is known, and its result is a direct fact of the next turn: one append
each. While steps are under way the run stays claimed, so that a dead worker's steps are run again elsewhere.
"""

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from derecho.clock import SECOND, micros
from derecho.engine.runs import LiveRun
from derecho.errors import PayloadError, RetryAfter
from derecho.journal import events as ev
from derecho.journal.changes import Change
from derecho.journal.failures import Failure, timeout_failure, to_failure
from derecho.journal.policies import ancestry, retry_at
from derecho.runtime.execution import StepRequest

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

_random = random.SystemRandom()
Tell = Callable[[str, ev.Fact, Change | None], None]


class StepRunner:
    """Runs the steps of live runs on the engine's loop."""

    def __init__(self, engine: "Engine", tell: Tell) -> None:
        self._engine = engine
        self._tell = tell

    def start(self, run: LiveRun) -> None:
        """Start the steps that the last turn asked for, and stop those that it no longer wants."""
        execution = run.execution
        if execution is None:
            return
        for step in [step for step in run.steps if step not in execution.pending]:
            run.steps.pop(step).cancel()
        requests, execution.steps = execution.steps, {}
        for step, request in requests.items():
            run.steps[step] = asyncio.get_running_loop().create_task(self._run(run, step, request))

    def cancel(self, run: LiveRun) -> None:
        for task in run.steps.values():
            task.cancel()
        run.steps.clear()

    async def _run(self, run: LiveRun, step: int, request: StepRequest) -> None:
        attempt = 1
        while True:
            fact, pause = await self._attempt(step, request, attempt)
            if pause is None:
                break
            attempt += 1
            await asyncio.sleep(pause / SECOND)
        run.steps.pop(step, None)
        if fact is not None and not run.gone:
            self._tell(run.identity.run_id, fact, None)

    async def _attempt(self, step: int, request: StepRequest, attempt: int) -> tuple[ev.Fact | None, int | None]:
        """The outcome of one attempt, and the pause before the next one (None: there is none)."""
        options: Any = request.options
        store = self._engine.store
        failure: Failure
        limit = asyncio.timeout(None if options.timeout is None else options.timeout / SECOND)
        names, delay = ["derecho.errors:ActivityTimeout", "builtins:Exception"], None
        try:
            async with limit:
                value = await request.fn()
            return ev.StepCompleted(step, options.encode(value), store.now(), attempt), None
        except PayloadError as exc:
            failure = to_failure(exc, retryable=False)
        except Exception as exc:
            if limit.expired() and isinstance(exc, TimeoutError):
                failure = timeout_failure("start_to_close", f"step {request.future.name!r} took too long")
            else:
                failure, names = to_failure(exc), ancestry(exc)
                delay = micros(exc.delay) if isinstance(exc, RetryAfter) else None
        now = store.now()
        due = retry_at(
            options.retry, failure, attempt=attempt, now=now, random=_random.random(), ancestry=names, delay=delay
        )
        return ev.StepFailed(step, failure, now, attempt), None if due is None else due - now
