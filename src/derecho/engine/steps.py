"""Steps: small durable closures that run in the worker of their run.

A step starts when the commit that records it is known, and its result is a direct fact of the next turn: one append
each. While steps are under way the run stays claimed, so that a dead worker's steps are run again elsewhere. The result
of a transaction is a message instead, committed with the user's rows under a key that only one such commit can have.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from derecho.clock import SECOND
from derecho.engine.outcomes import TIMEOUT_NAMES, Verdict, describe
from derecho.engine.runs import LiveRun
from derecho.errors import PayloadError, StoreError, StoreUnavailable
from derecho.journal import events as ev
from derecho.journal.changes import Change, Deliver, NewMessage, Receipt, Transition
from derecho.journal.failures import timeout_failure, to_failure
from derecho.journal.model import ClaimedRun
from derecho.journal.policies import retry_at
from derecho.journal.wire import encode_struct
from derecho.runtime.execution import StepRequest

if TYPE_CHECKING:
    from derecho.engine.engine import Engine

_random = random.SystemRandom()
_WRITE = "write a transaction"
Tell = Callable[[str, ev.Fact, Change | None], None]


class StepRunner:
    """Runs the steps of live runs on the engine's loop."""

    def __init__(self, engine: "Engine", tell: Tell) -> None:
        self._engine = engine
        self._tell = tell
        self._looking: asyncio.Task[None] | None = None

    def start(self, run: LiveRun) -> None:
        """Start the steps that the last turn asked for, and stop those that it no longer wants."""
        execution = run.execution
        if execution is None or not (run.steps or execution.steps):
            return
        for step in [step for step in run.steps if step not in execution.pending]:
            run.steps.pop(step).cancel()
        requests, execution.steps = execution.steps, {}
        for step, request in requests.items():
            run.steps[step] = asyncio.get_running_loop().create_task(self._run(run, step, request))

    def look(self) -> None:
        """Runs stay claimed while they have steps: hear what others wrote to them, or that they are closed."""
        if self._looking is None or self._looking.done():
            runs = [run for run in self._engine.workflows.runs if run.steps]
            self._looking = asyncio.get_running_loop().create_task(self._look(runs)) if runs else None

    async def _look(self, runs: list[LiveRun]) -> None:
        store, workflows = self._engine.store, self._engine.workflows
        for run in runs:
            run_id = run.identity.run_id
            with suppress(StoreError):  # the engine says when it is away
                row, pending = await store.get_run(run_id), await store.pending(run_id)
                if row is None or not row.is_open:
                    workflows.forget(run_id)
                elif row.claim != run.claim or run.busy or not run.steps:
                    continue
                elif row.inbox_last > run.inbox_known or row.terminate is not None:
                    workflows.claimed(ClaimedRun(row, pending.messages))

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    def cancel(self, run: LiveRun) -> None:
        for task in run.steps.values():
            task.cancel()
        run.steps.clear()

    async def _run(self, run: LiveRun, step: int, request: StepRequest) -> None:
        attempt = 1
        while True:
            fact, pause = await self._attempt(run, step, request, attempt)
            if pause is None:
                break
            attempt += 1
            await self._rest(pause)
        run.steps.pop(step, None)
        if fact is not None and not run.gone:
            self._tell(run.identity.run_id, fact, None)

    async def _rest(self, micros: int) -> None:
        await asyncio.sleep(micros / SECOND)

    async def _attempt(
        self, run: LiveRun, step: int, request: StepRequest, attempt: int
    ) -> tuple[ev.Fact | None, int | None]:
        """The outcome of one attempt (None: it is delivered already), and the pause before the next one, if any."""
        options: Any = request.options
        store = self._engine.store
        seconds = None if options.timeout is None else options.timeout / SECOND
        limit = asyncio.timeout(self._engine.lease.seconds / 2 if options.transactional else seconds)
        try:
            if options.transactional:
                await self._transact(run, step, request, limit)
                return None, None
            async with limit:
                value = await request.fn()
            return ev.StepCompleted(step, options.encode(value), store.now(), attempt), None
        except PayloadError as exc:
            verdict = Verdict(to_failure(exc, retryable=False), [])
        except BaseException as exc:
            task = asyncio.current_task()
            if isinstance(exc, KeyboardInterrupt) or (task is not None and task.cancelling()):
                raise  # the engine stops it
            if options.transactional and isinstance(exc, StoreUnavailable):
                self._engine.committer.outage.began(_WRITE, exc)
                return None, SECOND // 100 << min(attempt, 7)  # 20 ms, doubling to 1.28 s
            verdict = describe(exc)
            if limit.expired() and isinstance(exc, TimeoutError):
                message = f"step {request.future.name!r} took too long"
                verdict = Verdict(timeout_failure("start_to_close", message), TIMEOUT_NAMES)
        now, failure = store.now(), verdict.failure
        due = retry_at(
            options.retry,
            failure,
            attempt=attempt,
            now=now,
            random=_random.random(),
            ancestry=verdict.names,
            delay=verdict.delay,
        )
        return ev.StepFailed(step, failure, now, attempt), None if due is None else due - now

    async def _transact(self, run: LiveRun, step: int, request: StepRequest, limit: asyncio.Timeout) -> None:
        """Commit the user's rows with the message that says so; whoever comes second writes nothing.

        The limit is for the user's code: a commit that is under way may be slow, and takes effect or not.
        """
        engine, run_id = self._engine, run.identity.run_id
        told: list[ev.Fact] = []

        async def work(connection: Any) -> Transition:
            async with limit:
                value = request.options.encode(await request.fn(connection))
            told.append(ev.StepCompleted(step, value, engine.store.now()))
            message = NewMessage(encode_struct(told[0]), f"transaction:{run_id}:{step}")
            return (
                Deliver(message, run_id, drop=True),
            )  # without a claim, which nobody would know if its answer is lost

        result = await engine.store.transact(work)
        engine.committer.outage.over(_WRITE)
        run.steps.pop(step, None)
        if isinstance(result, Receipt):
            engine.message_delivered(result, None, told[0])
        engine.workflows.next(run)  # it may have to give its claim back, to read what others sent meanwhile
