"""The crash explorer: run a workflow once, then again for every commit with a fault there; the end must be the same.

The places are found by doing: the n-th commit of a run fails, for n = 1, 2, 3 … until a run ends before its n-th.
"""

import logging
import os
import random
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, cast, get_args

from derecho.testing.trials import Action, CrashPoint, Ending, Plan, Trial

R = TypeVar("R")

Fault = Literal["crash", "error", "duplicate", "late", "pause", "cancel", "evict"]

FAULTS: dict[Fault, tuple[tuple[Action, str], ...]] = {
    "crash": (
        ("die_before", "commit"),
        ("die_after", "commit"),
        ("die_after", "claim_runs"),
        ("die_after", "claim_activities"),
    ),
    "error": tuple(
        (action, method)
        for method in ("commit", "claim_runs", "claim_activities", "due_timers", "overdue", "load")
        for action in cast(tuple[Action, ...], ("error_before", "error_after"))
    ),
    "duplicate": (("twice", "commit"),),
    "late": (("late", "due_timers"),),
    "pause": (("pause_before", "commit"), ("pause_after", "commit")),
    "cancel": (("cancel", "commit"),),
    "evict": (("evict", "commit"),),
}
"""What each kind of fault does, at every call of which method."""

POINT, SEED = "DERECHO_CRASH_POINT", "DERECHO_CRASH_SEED"
_LOOKS = 12
"""Looks and claims at which a fault is tried; engines look all the time, so there is no last one."""


@dataclass
class CrashReport(Generic[R]):
    """What the explorer saw. `crash_points`: places at which a fault struck; `faults` counts them by kind.

    `attempts`: of activities, in all runs together. `outcome` is how the run without faults ended.
    """

    outcome: Ending
    crash_points: int = 0
    attempts: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {action}" for action, count in sorted(self.faults.items()))
        return (
            f"{self.crash_points} crash points ({kinds}), {self.attempts} attempts of activities, each {self.outcome}"
        )

    @property
    def result(self) -> R:
        """What the workflow returns; raises what it raises."""
        if isinstance(self.outcome.value, BaseException):
            raise self.outcome.value
        return cast(R, self.outcome.value)


class CrashFound(AssertionError):
    """A fault changed how a run ends. `points` says where it struck."""

    def __init__(self, message: str, points: Sequence[CrashPoint]) -> None:
        super().__init__(message)
        self.points = tuple(points)


async def explore(
    plan: Plan, faults: Collection[Fault] | None = None, limit: int | None = None, pairs: int = 0
) -> CrashReport[Any]:
    """See `Environment.explore_crashes`."""
    unknown = set(faults or ()) - set(get_args(Fault))
    if unknown:
        raise ValueError(f"no such faults: {sorted(unknown)}; there are {', '.join(get_args(Fault))}")
    chosen: Collection[Fault] = get_args(Fault) if faults is None else faults
    first = Trial(plan)
    try:
        report: CrashReport[Any] = CrashReport(await first.run())
    except AssertionError as exc:
        raise AssertionError(f"{plan.call.name!r} does not end without any fault: {exc}") from exc
    report.attempts = first.attempts
    only = os.environ.get(POINT)
    if only is not None:
        await _try(plan, report, [CrashPoint.parse(text) for text in only.split("+")])
        return report
    with _quiet():
        await _explore_all(plan, report, chosen, limit, pairs)
    return report


async def _explore_all(
    plan: Plan, report: CrashReport[Any], chosen: Collection[Fault], limit: int | None, pairs: int
) -> None:
    chance = random.Random(plan.seed)  # noqa: S311  (which places to try is no secret)
    places: list[CrashPoint] = []
    for action, method in _series(chosen):
        places += await _explore_series(plan, report, action, method, limit, chance)
    deaths = [point for point in places if point.action in ("die_before", "die_after")]
    for _ in range(pairs if deaths else 0):
        await _try(plan, report, [chance.choice(deaths), chance.choice(places)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Engines complain of every fault; that is seen when one is repeated."""
    logger = logging.getLogger("derecho")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _series(faults: Collection[Fault]) -> Iterator[tuple[Action, str]]:
    for fault in get_args(Fault):
        if fault in faults:
            yield from FAULTS[fault]


async def _explore_series(
    plan: Plan, report: CrashReport[Any], action: Action, method: str, limit: int | None, chance: random.Random
) -> list[CrashPoint]:
    """One fault at each call of a method; the points at which it struck. With a limit, at so many places by chance."""
    struck: list[CrashPoint] = []
    at = 0
    while limit is None or len(struck) < limit:
        at += 1 if limit is None else chance.randint(1, 4)
        point = CrashPoint(action, method, at)
        if not await _try(plan, report, [point]) or (method != "commit" and at >= _LOOKS):
            break
        struck.append(point)
    return struck


async def _try(plan: Plan, report: CrashReport[Any], points: Sequence[CrashPoint]) -> bool:
    """Whether the first fault struck; raises CrashFound when the run did not end as it should."""
    trial = Trial(plan, points)
    name = "+".join(str(point) for point in points)
    try:
        ending = await trial.run()
    except Exception as exc:
        raise CrashFound(_say(plan, report, name, f"{type(exc).__name__}: {exc}"), points) from exc
    may_differ = any(point.action == "cancel" for point in points)
    if not may_differ and not ending.is_like(report.outcome, plan.same):
        error = CrashFound(_say(plan, report, name, str(ending)), points)
        for history in trial.histories:
            events = "\n".join(f"  {event['id']} {event['type']} {event.get('name', '')}" for event in history)
            error.add_note(f"history of {history.workflow_id!r} with the fault:\n{events}")
        raise error
    if trial.fired:
        report.crash_points += 1
        for point in points[: trial.fired]:
            report.faults[point.action] += 1
    report.attempts += trial.attempts
    return trial.fired > 0


_WORDS: dict[Action, str] = {
    "die_before": "the process dies before {} {}",
    "die_after": "the process dies after {} {}",
    "error_before": "{} {} fails and does nothing",
    "error_after": "{} {} is done and its answer lost",
    "twice": "{} {} is done twice",
    "late": "due timers are seen late at {} {}",
    "pause_before": "the engine stands still before {} {}, longer than its lease",
    "pause_after": "the engine stands still after {} {}, longer than its lease",
    "cancel": "it is cancelled after {} {}",
    "evict": "it is taken out of memory after {} {}",
}


def _say(plan: Plan, report: CrashReport[Any], name: str, found: str) -> str:
    points = [CrashPoint.parse(text) for text in name.split("+")]
    what = ", then ".join(_WORDS[point.action].format(point.method, point.at) for point in points)
    return (
        f"workflow {plan.call.name!r} does not end as it should when {what}.\n"
        f"  without the fault  {report.outcome}\n"
        f"  with the fault     {found}\n"
        f"  crash point        {name}, seed {plan.seed} ({report.crash_points} others changed nothing)\n"
        f"Repeat it: {POINT}={name} {SEED}={plan.seed} {_command()}"
    )


def _command() -> str:
    """How this program was started, as far as one can tell."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    return f"python -m pytest '{test}'" if test else f"python {' '.join(sys.argv)}"


def seed_of(given: int) -> int:
    """The seed of the environment variable, if it is set."""
    return int(os.environ.get(SEED, given))
