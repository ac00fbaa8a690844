"""One order's life as text: what its history recorded, the shop's calls as bars, each kill as a line through it all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crashtest.evidence import Activity, Evidence, Kill, Recorded, instant
from order import Outcome
from shop.ledger import Call

WIDTH = 40


@dataclass(frozen=True)
class Row:
    """A line: what happened from an instant to another, with the parts of it that were busy."""

    at: float
    until: float
    name: str
    remark: str
    busy: Sequence[tuple[float, float]] = ()
    kill: bool = False


@dataclass(frozen=True)
class Scale:
    """Instants to columns."""

    start: float
    end: float

    def column(self, at: float) -> int:
        share = (at - self.start) / max(self.end - self.start, 0.001)
        return min(WIDTH - 1, max(0, int(share * WIDTH)))


def choose(evidence: Evidence) -> str:
    """The order that has most to tell: kills survived, calls repeated, an approval waited for."""

    def interest(order_id: str) -> tuple[int, int, str]:
        history = evidence.histories[order_id]
        keys = {activity.key for activity in history.activities()}
        hit = sum(call.key in keys for kill in evidence.kills for call in evidence.in_flight_at(kill.at))
        lived = len(kills_in(evidence, history))
        signals = sum(event["type"] == "signal_received" for event in history.events)
        return 4 * min(hit, 1) + 2 * lived + 2 * signals, len(history.events), order_id

    return max(evidence.histories, key=interest)


def kills_in(evidence: Evidence, history: Recorded) -> list[Kill]:
    return [kill for kill in evidence.kills if history.started_at <= kill.at < history.closed_at]


def timeline(evidence: Evidence, order_id: str) -> list[tuple[str, bool]]:
    """Lines of text; True marks those of a kill."""
    history = evidence.histories[order_id]
    kills = kills_in(evidence, history)
    scale = Scale(history.started_at, history.closed_at)
    rows = sorted(rows_of(evidence, history, kills), key=lambda row: row.at)
    return [(line(row, scale, kills), row.kill) for row in rows]


def rows_of(evidence: Evidence, history: Recorded, kills: Sequence[Kill]) -> Iterator[Row]:
    events = {event["id"]: event for event in history.events}
    yield Row(history.started_at, history.started_at, "started", str(history.events[0]["workflow_id"]))
    for activity in history.activities():
        calls = [call for call in evidence.calls if call.key == activity.key]
        busy = [(call.began_at, call.ended_at or history.closed_at) for call in calls]
        until = activity.ended_at or history.closed_at
        yield Row(activity.scheduled_at, until, activity.name, call_remark(activity, calls, kills), busy)
    for event in history.events:
        if event["type"] == "timer_fired":
            timer = events[event["timer"]]
            remark = f"{timer.get('summary', 'timer')}, {timer['duration'] / 1e6:g} s on a durable timer"
            yield Row(instant(timer), instant(event), "sleep", remark)
        elif event["type"] == "signal_received":
            answer = "granted" if event["payload"]["json"] else "refused"
            yield Row(instant(event), instant(event), "signal", f"{event['name']} {answer}")
    for kill in kills:
        yield Row(kill.at, kill.at, "SIGKILL", f"{kill.worker} dies", kill=True)
    yield Row(history.closed_at, history.closed_at, "ended", outcome_of(evidence, history))


def outcome_of(evidence: Evidence, history: Recorded) -> str:
    outcome = evidence.outcomes[history.events[0]["workflow_id"]]
    return f"{outcome.status}: {outcome.detail}" if isinstance(outcome, Outcome) else outcome


def call_remark(activity: Activity, calls: Sequence[Call], kills: Sequence[Kill]) -> str:
    """What is worth saying about the calls of an activity."""
    took = f"{1000 * ((activity.ended_at or activity.scheduled_at) - activity.scheduled_at):.0f} ms"
    if len(calls) == 1:
        return took
    hit = any(is_under_way(call, kill.at) for call in calls for kill in kills)
    reasons = [
        *(["cut by a kill"] if hit else []),
        *(["a 503"] if any(call.status == 503 for call in calls) else []),
        *(["told the first answer"] if any(call.repeat for call in calls) else []),
    ]
    return f"{len(calls)} calls, one key: {', '.join(reasons) or took}"


def is_under_way(call: Call, at: float) -> bool:
    return call.began_at <= at < (call.ended_at or float("inf"))


def line(row: Row, scale: Scale, kills: Sequence[Kill]) -> str:
    bar = [" "] * WIDTH
    for column in range(scale.column(row.at), scale.column(row.until) + 1):
        bar[column] = "─"
    for began, ended in row.busy:
        for column in range(scale.column(began), scale.column(ended) + 1):
            bar[column] = "█"
    if row.until == row.at:
        bar[scale.column(row.at)] = "✗" if row.kill else "●"
    for kill in kills:
        column = scale.column(kill.at)
        if any(began <= kill.at < ended for began, ended in row.busy):
            bar[column] = "✗"
        bar[column] = {" ": "╎", "─": "┼"}.get(bar[column], bar[column])
    return f"{row.at - scale.start:7.2f} s  {row.name:<8} {''.join(bar)}  {row.remark}".rstrip()
