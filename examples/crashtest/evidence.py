"""What is left when the show is over, as plain data: all that the proofs may look at.

It comes from outside: outcomes and exported histories from a client that never ran a workflow, calls and effects from
the shop's own file, kills from whoever killed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from crashtest.orders import Entry
from derecho import Client, History
from order import Outcome
from shop.ledger import Call, Effect, LedgerReader

ENDED = {"activity_completed", "activity_failed"}


@dataclass(frozen=True)
class Kill:
    """A worker that got SIGKILL; instants in seconds since 1970."""

    worker: str
    pid: int
    started_at: float
    at: float


@dataclass(frozen=True)
class Activity:
    """One activity of a history. `ended_at` is when its outcome was recorded, None without one."""

    key: str
    name: str
    scheduled_at: float
    ended_at: float | None
    attempts: int


@dataclass(frozen=True)
class Recorded:
    """A history in its export format, as a file would hold it."""

    text: str
    run_id: str
    events: Sequence[Mapping[str, Any]]

    @classmethod
    def parse(cls, text: str) -> "Recorded":
        header, *events = (msgspec.json.decode(line, type=dict[str, Any]) for line in text.split("\n") if line)
        return cls(text, header["run_id"], events)

    @property
    def started_at(self) -> float:
        return instant(self.events[0])

    @property
    def closed_at(self) -> float:
        return instant(self.events[-1])

    @property
    def workers(self) -> set[str]:
        """The engines that did a workflow task of this run."""
        return {event["worker"] for event in self.events if event["type"] == "workflow_task_completed"}

    def activities(self) -> Iterator[Activity]:
        outcomes = {event["activity"]: event for event in self.events if event["type"] in ENDED}
        for event in self.events:
            if event["type"] == "activity_scheduled":
                outcome = outcomes.get(event["id"])
                yield Activity(
                    key=f"{self.run_id}:{event['id']}",
                    name=event["name"],
                    scheduled_at=instant(event),
                    ended_at=instant(outcome) if outcome else None,
                    attempts=outcome.get("attempt", 1) if outcome else 0,
                )


def instant(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


@dataclass(frozen=True)
class Evidence:
    """`outcomes` and `histories` by order; an outcome may be the text of an error."""

    entries: Sequence[Entry]
    outcomes: Mapping[str, Outcome | str]
    histories: Mapping[str, Recorded]
    calls: Sequence[Call]
    effects: Sequence[Effect]
    stock: Mapping[str, int]
    kills: Sequence[Kill]

    def open_at(self, at: float) -> list[str]:
        """The orders that had begun and not ended at an instant."""
        return [key for key, history in self.histories.items() if history.started_at <= at < history.closed_at]

    def in_flight_at(self, at: float) -> list[Call]:
        """The calls that the shop was working on at an instant."""
        return [call for call in self.calls if call.began_at <= at < (call.ended_at or float("inf"))]


async def collect(
    client: Client, entries: Sequence[Entry], outcomes: Mapping[str, Outcome | str], kills: Sequence[Kill], ledger: Path
) -> Evidence:
    """Read everything, after the last worker has ended."""
    histories = {}
    for entry in entries:
        history: History = await client.get_by_id(entry.order.id).history()
        histories[entry.order.id] = Recorded.parse(history.dumps())
    reader = LedgerReader(ledger)
    try:
        calls, effects, stock = reader.calls(), reader.effects(), reader.stock()
    finally:
        reader.close()
    return Evidence(entries, outcomes, histories, calls, effects, stock, kills)
