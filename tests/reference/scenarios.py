"""The reference workflows with their inputs, and what comes to them from outside at which time."""

from dataclasses import dataclass, field
from typing import Any, Literal

from derecho import Handle, Signal
from derecho.invocation import Invocation
from tests.reference.workflows import (
    Order,
    aggregator,
    approval,
    approvals,
    batch,
    booking,
    changed,
    desk,
    fan_out,
    importing,
    order,
    orders,
    outbox,
    poller,
    readings,
    sender,
    stops,
    tenant,
    tree,
    trip,
)

HOUR, DAY = 3600, 86_400


@dataclass(frozen=True)
class Nudge:
    """What a client does `at` so many seconds after the start."""

    at: float
    what: Literal["signal", "cancel", "terminate"]
    signal: Signal[Any] | None = None
    value: Any = None

    async def happen(self, handle: Handle[Any]) -> None:
        if self.signal is not None:
            await handle.signal(self.signal, self.value, key=f"{self.at}")
        elif self.what == "cancel":
            await handle.cancel("no longer wanted", timeout=2 * HOUR)
        else:
            await handle.terminate("enough")


@dataclass(frozen=True)
class Scenario:
    id: str
    call: Invocation[Any]
    nudges: list[Nudge] = field(default_factory=list)


def send(at: float, signal: Signal[Any], value: Any) -> Nudge:
    return Nudge(at, "signal", signal, value)


WAYS = ["", "slow", "flaky"]
ARTICLES = ["mug", "tea", "lamp", "rug", "bowl", "çay", "İznik tile"]
VARIANTS = 15


def scenarios(variants: int = VARIANTS) -> list[Scenario]:
    """Every reference workflow in so many variants; variant 0 is its plain case."""
    return [Scenario(f"{name}-{n}", *make(n)) for n in range(variants) for name, make in MAKERS.items()]


Made = tuple[Invocation[Any], list[Nudge]]


def _order(n: int) -> Made:
    items = ARTICLES[n % 4 : n % 4 + 1 + n % 3]
    return order.bind(Order(items, 100 * n, WAYS[n % 3] if n != 7 else "broken")), [
        Nudge(DAY, "cancel") if n == 8 else Nudge(DAY, "terminate")
    ][: n in (8, 9)]


def _trip(n: int) -> Made:
    return trip.bind(3 if n == 0 else n % 5, "stuck" if n in (6, 11) else WAYS[n % 3]), [Nudge(20, "cancel")][: n == 11]


def _fan_out(n: int) -> Made:
    return fan_out.bind(50 if n == 0 else 2 * n), []


def _poller(n: int) -> Made:
    return poller.bind(2 + n // 2), [Nudge(40, "cancel"), Nudge(95, "terminate")][n % 2 : 1 + n % 2] if n > 11 else []


def _approval(n: int) -> Made:
    voters = 1 + n % 3
    answers = [send(60 + 40 * vote, approvals, f"voter {vote}") for vote in range(voters - (n % 4 == 3))]
    return approval.bind(HOUR if n % 5 else 110, voters), answers + [Nudge(80, "cancel")][: n == 13]


def _tree(n: int) -> Made:
    return tree.bind(2 if n == 0 else 1 + n % 2, 1 + n % 3, n % 4 == 1), [Nudge(20, "cancel")][: n in (2, 14)]


def _aggregator(n: int) -> Made:
    nudges = [send(30 * k + (200 if k > 3 else 0), readings, k * n) for k in range(n % 7)]
    return aggregator.bind(5, 120), nudges


def _batch(n: int) -> Made:
    return batch.bind(2 + n % 6, 2 + n % 3, n % 4 - 1), [Nudge(20, "cancel")][: n == 12]


def _tenant(n: int) -> Made:
    if n % 5 == 4:
        return tenant.bind(True, 2), []
    return tenant.bind(n % 2 == 0, 6), [Nudge(HOUR * (1 + 9 * n), "cancel" if n % 7 < 6 else "terminate")]


def _importing(n: int) -> Made:
    return importing.bind([3, 5, 5][: n % 4], 1 + n % 3), [Nudge(0, "cancel")][: n == 13]


def _desk(n: int) -> Made:
    nudges = [send(25 * k, orders, f"{ARTICLES[k % 7]}") for k in range(n % 6)]
    return desk.bind(n % 3, 2 + n % 2), nudges + [send(150, stops, True)][: n % 2]


def _changed(n: int) -> Made:
    return changed.bind(1 + n % 4, [600, 40, 5][n % 3]), []


def _booking(n: int) -> Made:
    return booking.bind(f"article {n}", 1 + n % 4), []


def _outbox(n: int) -> Made:
    if n % 3 == 2:
        return sender.bind("nobody", [n] * (n % 5)), []
    return outbox.bind([k * k for k in range(1 + n % 5)]), [Nudge(0, "cancel")][: n == 6]


MAKERS = {
    "order": _order,
    "trip": _trip,
    "fan_out": _fan_out,
    "poller": _poller,
    "approval": _approval,
    "tree": _tree,
    "aggregator": _aggregator,
    "batch": _batch,
    "tenant": _tenant,
    "importing": _importing,
    "desk": _desk,
    "changed": _changed,
    "booking": _booking,
    "outbox": _outbox,
}
