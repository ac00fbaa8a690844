"""One start of a workflow on its way to the store."""

import platform
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from msgspec.structs import replace

from derecho.errors import PayloadError, WorkflowAlreadyRunning
from derecho.invocation import bad_name, check_choice
from derecho.journal import events as ev
from derecho.journal.changes import ANY_CLAIM, Change, CreateRun, NewMessage, Receipt
from derecho.journal.model import RunRow, type_and_version
from derecho.journal.signatures import encode_value
from derecho.journal.store import Store
from derecho.journal.wire import encode_struct
from derecho.messages import Signal
from derecho.runtime.ending import terminate
from derecho.runtime.loop import RUNTIME_VERSION

if TYPE_CHECKING:
    from derecho.client import Client

IfRunning = Literal["fail", "use_existing", "terminate"]
IfClosed = Literal["allow", "allow_if_failed", "reject", "return_existing"]

PYTHON = ".".join(platform.python_version_tuple()[:2])


class Start:
    """One start on its way: the run row and its first messages, kept over retries so that they stay the same."""

    def __init__(
        self, client: "Client", workflow_type: str, version: int, queue: str, values: Any, id: str | None
    ) -> None:
        self._client = client
        now = client.store.now()
        run_id = new_run_id(now)
        self.workflow_id = workflow_id = run_id if id is None else check_id(id, "workflow id")
        self._row = RunRow(run_id, workflow_id, workflow_type, queue, "running", version, run_id, now, ready_at=now)
        self._facts: list[ev.Fact] = [
            ev.WorkflowStarted(
                *(workflow_type, workflow_id, run_id, now, values, version, RUNTIME_VERSION, PYTHON, run_id)
            )
        ]

    def add_signals(self, signals: Sequence[tuple[Signal[Any], Any]]) -> None:
        for signal, value in signals:
            payload = encode_value(value, signal.type, self._client.converter, f"signal {signal.name!r}")
            self._facts.append(ev.SignalReceived(signal.name, payload, self._row.started_at))

    async def commit(self, if_running: IfRunning, if_closed: IfClosed) -> str:
        """The id of the run that the workflow id now has."""
        check_choice(if_running, get_args(IfRunning), "if_running")
        check_choice(if_closed, get_args(IfClosed), "if_closed")
        client, host = self._client, self._client._host
        expect: str | Literal[False] | None = False
        before: tuple[Change, ...] = ()
        while True:
            if if_closed != "allow":
                latest = await client.ask(client.store.find_run, self.workflow_id)
                expect = None if latest is None else latest.run_id
                if latest is not None and not latest.is_open and not _may_reuse(latest, if_closed):
                    if if_closed == "return_existing":
                        return latest.run_id
                    raise WorkflowAlreadyRunning(
                        f"workflow {self.workflow_id!r} has run already and closed as {latest.status}",
                        workflow_id=self.workflow_id,
                        run_id=latest.run_id,
                    )
            row, create = self._row, CreateRun(self._row, (), expect)
            birth = None if host is None or before else host.begin(create, self._facts)
            if birth is not None:
                result = await birth
            else:
                result = await client._committer.commit((*before, with_messages(create, self._facts)))
            if isinstance(result, Receipt):
                return row.run_id
            if result.reason == "already_running" and if_running == "use_existing":
                return result.detail
            if result.reason == "already_running" and if_running == "fail":
                raise WorkflowAlreadyRunning(
                    f"workflow {self.workflow_id!r} is running already: wait for it, choose another id, or pass "
                    "if_running='use_existing' or 'terminate'",
                    workflow_id=self.workflow_id,
                    run_id=result.detail,
                )
            if result.reason == "unfit":
                raise PayloadError(
                    f"the store cannot keep this start of workflow {self.workflow_id!r}: {result.detail}"
                )
            # The open run is to be closed first, or the world moved between look and commit: look again.
            before = await self._termination() if result.reason == "already_running" or before else ()

    async def _termination(self) -> tuple[Change, ...]:
        row = await self._client.ask(self._client.store.find_run, self.workflow_id)
        if row is None or not row.is_open:
            return ()
        # The run id makes it ours: two starters at one instant must not take each other's commit for their own.
        reason = f"replaced by a new start, run {self._row.run_id}"
        event = ev.WorkflowTerminated(reason, max(self._client.store.now(), row.started_at))
        children = await self._client.ask(self._client.store.children, row.run_id)
        return terminate(row, children, event, ANY_CLAIM)


async def newest_version(store: Store, workflow_type: str) -> int:
    """The newest version of a workflow that running engines have; 1 when none has it."""
    served = [type_and_version(name) for worker in await store.workers() for name in worker.serves]
    return max((version for name, version in served if name == f"workflow:{workflow_type}"), default=1)


def with_messages(create: CreateRun, facts: Sequence[ev.Fact]) -> CreateRun:
    """A start that leaves the first facts of its run in the inbox."""
    messages = tuple(NewMessage(encode_struct(fact)) for fact in facts)
    return replace(create, row=replace(create.row, inbox_last=len(messages)), messages=messages)


def new_run_id(now: int) -> str:
    """A UUIDv7: sorted by time, so that new rows stand together."""
    chance = secrets.randbits(74)
    value = (now // 1_000 & 2**48 - 1) << 80 | 0x7 << 76 | chance >> 62 << 64 | 0b10 << 62 | chance & 2**62 - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_id(id: str, what: str) -> str:
    reason = bad_name(id)
    if reason is not None:
        raise PayloadError(f"{what} {id!r} {reason}")
    return id


def _may_reuse(latest: RunRow, if_closed: IfClosed) -> bool:
    return if_closed == "allow_if_failed" and latest.status in ("failed", "cancelled", "terminated")
