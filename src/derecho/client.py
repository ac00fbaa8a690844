"""The client: start workflows, send them messages, read what became of them.

Works in an engine's process and on its own (a web process, a script). What it returns from is durable. A store that is
away is asked again for 30 s; what raised a StoreUnavailable of unknown outcome then may be repeated with the same id.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from msgspec.structs import replace

from derecho.callbacks import complete
from derecho.clock import Duration, micros
from derecho.committer import Committer, Done
from derecho.errors import DefinitionError, StoreError, WorkflowError, WorkflowNotFound
from derecho.handle import Handle, Run
from derecho.history import History
from derecho.invocation import Invocation
from derecho.journal import changes as ch
from derecho.journal import events as ev
from derecho.journal.failures import to_failure
from derecho.journal.model import RunFilter, RunRow, Status
from derecho.journal.payloads import Codec, Converter
from derecho.journal.signatures import encode_value
from derecho.journal.store import Store
from derecho.journal.wire import encode_struct
from derecho.messages import Signal
from derecho.outages import Outage, patiently
from derecho.runtime.ending import terminate
from derecho.starts import IfClosed, IfRunning, Start, check_id, newest_version
from derecho.stores import open_store
from derecho.unserved import unserved
from derecho.watcher import Closing, ResultWatcher, decode_outcome
from derecho.workflow import Workflow, WorkflowDefinition, encode_input

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

INBOX_LIMIT = 10_000
"""Unread messages after which senders are told to try again later."""


class Host(Protocol):
    """The engine behind a client, if there is one."""

    def begin(self, create: ch.CreateRun, facts: Sequence[ev.Fact]) -> Coroutine[Any, Any, ch.Result] | None:
        """Commit a start with the run's first turn, when this engine would begin it at once."""

    def warm_claim(self, workflow_id: str, run_id: str | None) -> tuple[str, str] | None:
        """Worker and claim for a message to a run that is warm there."""

    def message_delivered(self, receipt: ch.Receipt, claim: str | None, fact: ev.Fact) -> None: ...

    def run_gone(self, run_id: str) -> None: ...

    def release_uncertain(self, transition: ch.Transition, result: ch.Result | None) -> None: ...

    def holds(self, run_id: str) -> bool: ...


class Within:
    """Commits nothing: writes in somebody's open transaction, who commits or rolls back."""

    def __init__(self, store: Store, connection: object) -> None:
        self._store = store
        self._connection = connection
        self.outage = Outage(store.url)

    async def commit(self, transition: ch.Transition, heard: Done | None = None) -> ch.Result:
        return await self._store.commit_within(self._connection, transition)


class Client:
    """Starts and steers workflows. With a URL it opens the store itself, and `async with` closes it."""

    def __init__(
        self,
        store: Store | str,
        *,
        codec: Codec | None = None,
        _host: Host | None = None,
        _committer: Committer | Within | None = None,
        _converter: Converter | None = None,
    ) -> None:
        self._owns_store = isinstance(store, str)
        self.store: Store = open_store(store) if isinstance(store, str) else store
        self.converter = _converter or Converter(codec)
        self._committer: Committer | Within = _committer or Committer(self.store)
        self._host = _host
        self._watcher = ResultWatcher(self.store, _host.holds if _host is not None else lambda _: False)

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what was accepted; closes the store if this client opened it."""
        self._watcher.close()
        if self._host is None and isinstance(self._committer, Committer):
            await self._committer.close(timeout=10.0)
        if self._owns_store:
            await self.store.close()

    # --- starting ----------------------------------------------------------------------------------------------------

    async def start(
        self,
        call: Invocation[R],
        *,
        id: str | None = None,
        if_running: IfRunning = "fail",
        if_closed: IfClosed = "allow",
        signals: Sequence[tuple[Signal[Any], Any]] = (),
    ) -> Handle[R]:
        """Start a workflow; on return it is durable, whoever crashes.

        Args:
            id: the workflow id, a business key; at most one run of it is open. A random one by default.
            if_running: what to do when the id is taken by an open run; "terminate" closes that one first.
            if_closed: whether the id of a closed run may be used again.
            signals: delivered before all others, in the same commit.

        Raises WorkflowAlreadyRunning, PayloadError for arguments that do not fit, StoreError.
        """
        definition = _workflow_of(call)
        await self.store.open()  # a start says what time it is, by the store's clock
        created = Start(
            self, definition.name, definition.version, definition.queue_name, encode_input(call, self.converter), id
        )
        created.add_signals(signals)
        run_id = await created.commit(if_running, if_closed)
        return Handle(self, created.workflow_id, run_id, definition.signature, started=True)

    async def start_by_name(self, workflow_type: str, *args: Any, id: str | None = None) -> Handle[Any]:
        """Start a workflow of which only the name is known here; its arguments are not checked before it runs.

        It runs in the newest version that a running engine has.
        """
        check_id(workflow_type, "workflow type")
        what = f"argument {{}} of {workflow_type!r}"
        payloads = tuple(self.converter.encode(arg, what.format(n)) for n, arg in enumerate(args, 1))
        await self.store.open()
        version = await newest_version(self.store, workflow_type)
        created = Start(self, workflow_type, version, "default", payloads, id)
        run_id = await created.commit("fail", "allow")
        return Handle(self, created.workflow_id, run_id, None, started=True)

    async def start_many(self, calls: Sequence[tuple[str, Invocation[R]]]) -> list[Handle[R]]:
        """Start many workflows, each under its id, in few commits; an id that is open keeps its run.

        All arguments are checked before the first start. Repeating the call after an error is harmless.
        """
        starts = []
        await self.store.open()
        for id, call in calls:
            definition = _workflow_of(call)
            values = encode_input(call, self.converter)
            starts.append((Start(self, definition.name, definition.version, definition.queue_name, values, id), call))
        run_ids = await asyncio.gather(*(start.commit("use_existing", "allow") for start, _ in starts))
        return [
            Handle(self, start.workflow_id, run_id, call.definition.signature, started=True)
            for (start, call), run_id in zip(starts, run_ids, strict=True)
        ]

    async def run(self, call: Invocation[R], *, id: str | None = None) -> R:
        """Start a workflow and wait for its result."""
        handle = await self.start(call, id=id)
        return await handle.result()

    # --- finding -----------------------------------------------------------------------------------------------------

    def get(self, workflow: Workflow[P, R], id: str, run_id: str | None = None) -> Handle[R]:
        """A typed handle on a workflow id, or on one run of it; asks nothing of the store."""
        return Handle(self, id, run_id, workflow.signature)

    def get_by_id(self, id: str, run_id: str | None = None) -> Handle[Any]:
        """A handle without types: results come back as plain JSON values."""
        return Handle(self, id, run_id, None)

    async def list(self, *, workflow_type: str | None = None, status: Status | None = None) -> AsyncIterator[Run]:
        """Runs, newest first, read page by page."""
        before: tuple[int, str] | None = None
        while True:
            page = await self.ask(self.store.list_runs, RunFilter(workflow_type, status, before=before))
            for row in page:
                yield Run.of(row)
            if not page:
                return
            before = (page[-1].started_at, page[-1].run_id)

    async def find(self, id: str, run_id: str | None = None) -> RunRow:
        """The row of a run; raises WorkflowNotFound."""
        row = await (self.ask(self.store.find_run, id) if run_id is None else self.ask(self.store.get_run, run_id))
        if row is None or row.workflow_id != id:
            raise WorkflowNotFound(
                f"there is no run {run_id or ''} of workflow {id!r} in {self.store.url}".replace("run  of", "run of"),
                workflow_id=id,
                run_id=run_id,
            )
        return row

    async def describe(self, id: str, run_id: str | None) -> Run:
        row = await self.find(id, run_id)
        if row.status in ("running", "cancelling"):
            reason = await unserved(self, row)
            if reason is not None:
                row = replace(row, status="blocked", blocked_reason=reason)
        return Run.of(row)

    async def history(self, id: str, run_id: str | None) -> History:
        row = await self.find(id, run_id)
        rows = (await self.ask(self.store.load, [row.run_id]))[row.run_id]
        return History.from_rows(row.workflow_id, row.run_id, row.workflow_type, rows)

    async def closing(self, id: str, run_id: str) -> Closing:
        """How a run closed; waits until it does."""
        closings = self._watcher.closings
        if self._host is None or not self._host.holds(run_id):
            row = await self.find(id, run_id)
            if not row.is_open:
                return row.status, decode_outcome(row.outcome)
        return await self._watcher.wait(run_id, closings)

    async def successor(self, id: str, run_id: str) -> str | None:
        """The run that a run continued as, if it did; the newest of the chain when retention took that one."""
        row = await self.find(id, run_id)
        outcome = None if row.is_open else decode_outcome(row.outcome)
        if not isinstance(outcome, ev.WorkflowContinuedAsNew):
            return None
        following = await self.ask(self.store.get_run, outcome.run_id) or await self.ask(self.store.find_run, id)
        return None if following is None or following.chain_id != row.chain_id else following.run_id

    def run_closed(self, run_id: str, status: Status, outcome: ev.Event) -> None:
        """The engine of this client closed a run."""
        self._watcher.closed(run_id, status, outcome)

    # --- messages ----------------------------------------------------------------------------------------------------

    async def signal(self, id: str, run_id: str | None, signal: Signal[T], value: T, key: str | None) -> None:
        payload = encode_value(value, signal.type, self.converter, f"signal {signal.name!r}")
        if key is not None:
            check_id(key, "signal key")
        fact = ev.SignalReceived(signal.name, payload, self.store.now(), key)
        await self._deliver(id, run_id, fact, f"signal:{key}" if key is not None else f"once:{secrets.token_hex(12)}")

    async def cancel(self, id: str, run_id: str | None, reason: str, timeout: Duration | None) -> None:
        limit = None if timeout is None else micros(timeout)
        fact = ev.CancelRequested(reason, self.store.now(), limit)
        await self._deliver(id, run_id, fact, f"once:{secrets.token_hex(12)}")

    async def terminate(self, id: str, run_id: str | None, reason: str) -> None:
        while True:
            row = await self.find(id, run_id)
            if row.status == "continued_as_new":
                run_id = await self.successor(id, row.run_id)
                continue
            if not row.is_open:
                return
            event = ev.WorkflowTerminated(reason, max(self.store.now(), row.started_at))
            children = await self.ask(self.store.children, row.run_id)
            result = await self._committer.commit(terminate(row, children, event, ch.ANY_CLAIM))
            if isinstance(result, ch.Receipt):
                if self._host is not None:
                    self._host.run_gone(row.run_id)
                self.run_closed(row.run_id, "terminated", event)
                return

    async def _deliver(self, id: str, run_id: str | None, fact: ev.Fact, key: str) -> None:
        worker, claim = self.warm_claim(id, run_id)
        target = None if run_id is not None else id
        message = ch.NewMessage(encode_struct(fact), key)
        deliver = ch.Deliver(message, run_id, target, limit=INBOX_LIMIT, worker=worker, claim=claim)
        result = await self.send((deliver,), claim, fact)
        if not isinstance(result, ch.Conflict):
            return
        following = await self.successor(id, run_id) if run_id is not None and result.reason == "closed" else None
        if following is None:
            raise _undelivered(id, run_id, result)
        await self._deliver(id, following, fact, key)

    # --- callbacks ---------------------------------------------------------------------------------------------------

    async def complete(self, token: str, value: Any) -> None:
        """Complete a callback of a workflow; on return that is durable.

        Raises CallbackClosed for a token that is wrong, was used before, or came too late.
        """
        payload = self.converter.encode(value, "the value of a callback")
        now = self.store.now()
        await complete(self, token, lambda id, sender: ev.ActivityCompleted(id, payload, now, 1, now, sender))

    async def fail(self, token: str, error: Exception) -> None:
        """Let a callback fail: the workflow sees `error`, with ActivityFailed as its cause. Raises as `complete`."""
        failure = to_failure(error, retryable=False)
        now = self.store.now()
        await complete(self, token, lambda id, sender: ev.ActivityFailed(id, failure, now, 1, now, sender))

    # --- transactions ------------------------------------------------------------------------------------------------

    def within(self, transaction: object) -> "Client":
        """A client that writes in your own open transaction on the store's database: start a workflow with your rows.

        Nothing begins before you commit, and nothing remains when you roll back. Takes a connection of asyncpg's to the
        store's database; or an `sqlite3.Connection` to its file, or an SQLAlchemy connection or session on one.
        """
        return Client(self.store, _committer=Within(self.store, transaction), _converter=self.converter)

    # --- for callbacks -----------------------------------------------------------------------------------------------

    async def ask(self, read: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read from the store, with patience."""
        return await patiently(self._committer.outage, read, *args, **kwargs)

    async def send(self, transition: ch.Transition, claim: str | None, fact: ev.Fact) -> ch.Result:
        """Commit a message. This client's engine hears of it, and of its claim, also when the caller goes away."""
        host = self._host

        def heard(result: ch.Result | StoreError) -> None:
            if host is not None and isinstance(result, StoreError):
                host.release_uncertain(transition, None)
            elif host is not None and isinstance(result, ch.Receipt) and not result.repeated:
                host.message_delivered(result, claim, fact)

        return await self._committer.commit(transition, heard)

    def warm_claim(self, id: str, run_id: str | None) -> tuple[str | None, str | None]:
        """Worker and claim for a message to a run that this client's engine holds warm."""
        return (self._host.warm_claim(id, run_id) if self._host is not None else None) or (None, None)


def _workflow_of(call: Invocation[Any]) -> WorkflowDefinition:
    definition = getattr(call, "definition", None)
    if not isinstance(definition, WorkflowDefinition):
        raise DefinitionError(f"{call!r} is not a call of a workflow: pass some_workflow.bind(...)")
    return definition


def _undelivered(id: str, run_id: str | None, conflict: ch.Conflict) -> WorkflowError:
    if conflict.reason == "full":
        return WorkflowError(
            f"workflow {id!r} has {INBOX_LIMIT:,} unread messages: nothing was sent, try again later",
            workflow_id=id,
            run_id=run_id,
        )
    why = f"it is closed as {conflict.detail}" if conflict.reason == "closed" else "there is no open run of this id"
    return WorkflowNotFound(f"workflow {id!r} cannot take a message: {why}", workflow_id=id, run_id=run_id)
