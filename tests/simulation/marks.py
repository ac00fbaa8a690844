"""Rare things that a commit shows to have happened."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from derecho.journal.changes import (
    Advance,
    BlockRun,
    BuryWorker,
    Change,
    Conflict,
    CreateRun,
    Deliver,
    DropTimer,
    FinishActivity,
    RenewWorker,
    RequestTerminate,
    Result,
    RetryActivity,
    Transition,
)

if TYPE_CHECKING:
    from tests.simulation.server import Server

_ENDED = {
    "continued_as_new": "a run continued as new",
    "cancelled": "a run was cancelled",
    "terminated": "a run was terminated",
    "failed": "a run failed",
}


def marks_of(server: "Server", batch: Sequence[Transition], results: Sequence[Result]) -> Iterator[str]:
    refused = sum(isinstance(result, Conflict) for result in results)
    if 0 < refused < len(results):
        yield "a batch was refused in part"
    for transition, result in zip(batch, results, strict=True):
        for change in transition:
            name = _refused(change, result) if isinstance(result, Conflict) else _done(change)
            if name is not None:
                yield name
        if not isinstance(result, Conflict):
            if result.repeated:
                first = transition[0]
                is_start = isinstance(first, CreateRun)
                yield "a start was repeated" if is_start else "a commit was known only when it was repeated"
            kinds = [type(change) for change in transition]
            if kinds[:2] == [FinishActivity, Deliver]:
                yield "a result went by the inbox"
            delivers = [change for change in transition if isinstance(change, Deliver)]
            for change, (_, number, _) in zip(delivers, result.delivered, strict=False):
                if change.message.key is not None and change.message.key.startswith("signal:") and not number:
                    yield "a signal came twice and was taken once"


def _refused(change: Change, result: Conflict) -> str | None:
    match change:
        case Advance():
            if result.reason == "unread":
                return "a closing run was held back by a message"
            if result.reason in ("claimed", "moved", "closed"):
                return "a stale workflow task was refused"
        case FinishActivity() | RetryActivity():
            return "a stale outcome of an attempt was refused"
        case DropTimer(must_exist=True):
            return "a timer had fired already"
        case RenewWorker():
            return "an engine found that it was buried"
    return None


def _done(change: Change) -> str | None:
    match change:
        case BuryWorker():
            return "a dead engine was buried"
        case Advance():
            return _ENDED.get(change.status)
        case BlockRun(reason=reason):  # counted, too rare to be asked for in every sample
            return "a run was quarantined" if reason.startswith("quarantined") else "a run was blocked"
        case RequestTerminate():
            return "a run was asked to terminate by its parent"
        case Deliver(delivered=delivered, undelivered=undelivered) if delivered is not None or undelivered is not None:
            return None  # see `Server`
        case RetryActivity(last_failure=failure) if failure is not None:
            if "died in attempt" in failure:
                return "a lost activity was attempted again"
            if "ran out of" in failure:
                return "an attempt ran out of time"
    return None
