"""The auditor finds everything that is wrong in a store's tables, and nothing where nothing is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from derecho import MemoryStore, PostgresStore, Store
from derecho.audit import audit
from derecho.journal.model import CLAIMED
from derecho.stores.sqlite import SQLiteStore
from tests.audit.hands import Hand, MemoryHand, PostgresHand, SQLiteHand
from tests.audit.scene import Family, build
from tests.support.schemas import Janitor

Plant = Callable[[Hand, Family], str]
"""Breaks something in a family; gives the run id, or for I11 the workflow id, at which it must be found."""

OUTCOME = '{"type":"activity_cancelled","activity":%d,"failure":{"type":"x","message":"y"},"at":1}'
PLANTS: dict[str, tuple[str, Plant]] = {}


def plant(invariant: str) -> Callable[[Plant], Plant]:
    def register(function: Plant) -> Plant:
        PLANTS[function.__name__] = invariant, function
        return function

    return register


@plant("I1")
def a_workflow_task_is_missing(hand: Hand, family: Family) -> str:
    hand.delete("history", family.mother, 2)
    return family.mother


@plant("I1")
def the_row_counts_an_event_too_many(hand: Hand, family: Family) -> str:
    hand.change("runs", family.mother, events=hand.field(family.mother, "events") + 1)
    return family.mother


@plant("I1")
def a_history_belongs_to_nobody(hand: Hand, family: Family) -> str:
    hand.copy("history", family.mother, 1, run_id=f"nobody-{family.name}")
    return f"nobody-{family.name}"


@plant("I2")
def a_completed_run_is_called_failed(hand: Hand, family: Family) -> str:
    hand.change("runs", family.done, status="failed")
    return family.done


@plant("I2")
def an_open_run_is_called_completed(hand: Hand, family: Family) -> str:
    hand.change("runs", family.target, status="completed", closed_at=1)
    return family.target


@plant("I2")
def a_closed_run_is_called_open(hand: Hand, family: Family) -> str:
    hand.change("runs", family.done, status="running", closed_at=None)
    return family.done


@plant("I2")
def an_outcome_is_not_the_last_event(hand: Hand, family: Family) -> str:
    hand.change("runs", family.done, outcome='{"type":"workflow_completed","result":{"json":"undone"}}')
    return family.done


@plant("I3")
def the_head_is_another(hand: Hand, family: Family) -> str:
    hand.change("runs", family.mother, digest="0" * 32)
    return family.mother


@plant("I3")
def a_workflow_task_was_rewritten(hand: Hand, family: Family) -> str:
    hand.change("history", family.mother, 1, at=1)
    return family.mother


@plant("I3")
def a_workflow_task_is_not_readable(hand: Hand, family: Family) -> str:
    hand.change("history", family.mother, 1, data="[{}]")
    return family.mother


@plant("I4")
def an_outcome_is_of_nothing(hand: Hand, family: Family) -> str:
    add_message(hand, family.mother, OUTCOME % 1)
    return family.mother


@plant("I4")
def an_activity_ended_twice(hand: Hand, family: Family) -> str:
    [activity] = hand.numbers("activities", family.mother)
    hand.delete("activities", family.mother)
    add_message(hand, family.mother, OUTCOME % activity)
    add_message(hand, family.mother, OUTCOME % activity)
    return family.mother


@plant("I5")
def an_activity_is_gone(hand: Hand, family: Family) -> str:
    hand.delete("activities", family.mother)
    return family.mother


@plant("I5")
def an_activity_ended_and_is_still_there(hand: Hand, family: Family) -> str:
    [activity] = hand.numbers("activities", family.mother)
    add_message(hand, family.mother, OUTCOME % activity)
    return family.mother


@plant("I5")
def an_activity_was_never_scheduled(hand: Hand, family: Family) -> str:
    [activity] = hand.numbers("activities", family.mother)
    hand.copy("activities", family.mother, activity, activity=1)
    return family.mother


@plant("I5")
def an_activity_is_held_by_a_ghost(hand: Hand, family: Family) -> str:
    hand.change("activities", family.mother, claim="token", worker="ghost")
    return family.mother


@plant("I6")
def a_closed_run_has_an_activity(hand: Hand, family: Family) -> str:
    [activity] = hand.numbers("activities", family.mother)
    hand.copy("activities", family.mother, activity, run_id=family.done)
    return family.done


@plant("I6")
def a_closed_run_has_a_timer(hand: Hand, family: Family) -> str:
    [timer] = hand.numbers("timers", family.mother)
    hand.copy("timers", family.mother, timer, run_id=family.done)
    return family.done


@plant("I6")
def a_closed_run_has_a_message(hand: Hand, family: Family) -> str:
    hand.copy("inbox", family.mother, hand.numbers("inbox", family.mother)[0], run_id=family.done)
    return family.done


@plant("I6")
def a_timer_belongs_to_nobody(hand: Hand, family: Family) -> str:
    [timer] = hand.numbers("timers", family.mother)
    hand.copy("timers", family.mother, timer, run_id=f"nobody-{family.name}")
    return f"nobody-{family.name}"


@plant("I6")
def a_closed_chain_has_a_key(hand: Hand, family: Family) -> str:
    hand.add_key(family.done, "key")
    return family.done


@plant("I7")
def a_timer_is_gone(hand: Hand, family: Family) -> str:
    hand.delete("timers", family.mother)
    return family.mother


@plant("I7")
def a_timer_fires_at_another_time(hand: Hand, family: Family) -> str:
    hand.change("timers", family.mother, fire_at=1)
    return family.mother


@plant("I7")
def a_timer_was_never_scheduled(hand: Hand, family: Family) -> str:
    [timer] = hand.numbers("timers", family.mother)
    hand.copy("timers", family.mother, timer, timer=1)
    return family.mother


@plant("I8")
def a_run_sleeps_on_its_messages(hand: Hand, family: Family) -> str:
    hand.change("runs", family.mother, ready_at=None)
    return family.mother


@plant("I8")
def a_run_is_held_by_a_ghost(hand: Hand, family: Family) -> str:
    hand.change("runs", family.target, claim="token", worker="ghost", ready_at=CLAIMED)
    return family.target


@plant("I8")
def a_run_has_half_a_claim(hand: Hand, family: Family) -> str:
    hand.change("runs", family.target, claim="token")
    return family.target


@plant("I8")
def a_blocked_run_is_never_tried_again(hand: Hand, family: Family) -> str:
    hand.change("runs", family.target, status="blocked", blocked_reason="a slip", blocked_count=1, ready_at=None)
    return family.target


@plant("I9")
def a_message_is_gone(hand: Hand, family: Family) -> str:
    hand.delete("inbox", family.mother, hand.numbers("inbox", family.mother)[0])
    return family.mother


@plant("I9")
def a_message_was_never_there(hand: Hand, family: Family) -> str:
    hand.change("runs", family.mother, inbox_last=hand.field(family.mother, "inbox_last") + 1)
    return family.mother


@plant("I10")
def a_child_names_another_event_of_its_parent(hand: Hand, family: Family) -> str:
    hand.change("runs", family.kid, parent_child=1)
    return family.kid


@plant("I10")
def a_child_is_gone(hand: Hand, family: Family) -> str:
    hand.delete("runs", family.kid)
    return family.mother


@plant("I10")
def a_child_has_closed_and_nobody_was_told(hand: Hand, family: Family) -> str:
    first, second = hand.numbers("inbox", family.mother)
    hand.delete("inbox", family.mother, first)
    hand.copy("inbox", family.mother, second, number=first)
    hand.delete("inbox", family.mother, second)
    hand.change("runs", family.mother, inbox_last=first)
    return family.mother


@plant("I11")
def a_workflow_id_has_two_open_runs(hand: Hand, family: Family) -> str:
    hand.copy("runs", family.target, None, run_id=f"twin-{family.name}")
    return f"{family.name}-target"


@plant("I11")
def a_chain_is_broken(hand: Hand, family: Family) -> str:
    hand.delete("runs", family.new)
    return family.old


@plant("I12")
def a_signal_between_runs_came_twice(hand: Hand, family: Family) -> str:
    [_, signal] = hand.numbers("inbox", family.deaf)
    hand.copy("inbox", family.deaf, signal, number=signal + 1)
    hand.change("runs", family.deaf, inbox_last=signal + 1)
    return family.deaf


@plant("I12")
def a_signal_between_runs_never_came(hand: Hand, family: Family) -> str:
    [first, signal] = hand.numbers("inbox", family.deaf)
    hand.delete("inbox", family.deaf, signal)
    hand.change("runs", family.deaf, inbox_last=first)
    return family.mother


@plant("I12")
def a_key_names_a_signal_that_was_never_sent(hand: Hand, family: Family) -> str:
    hand.add_key(family.target, f"{family.mother}:1")
    return family.mother


def add_message(hand: Hand, run_id: str, data: str) -> None:
    last = hand.numbers("inbox", run_id)[-1]
    hand.copy("inbox", run_id, last, number=last + 1, data=data)
    hand.change("runs", run_id, inbox_last=last + 1)


async def check_plants(store: Store, hand: Callable[[], Hand]) -> None:
    families = await build(store, [f"{number}" for number in range(len(PLANTS))])
    assert await audit(store) == []
    planted: dict[tuple[str, str], str] = {}
    editor = hand()
    for (name, (invariant, function)), family in zip(PLANTS.items(), families.values(), strict=True):
        planted[invariant, function(editor, family)] = name
    found: set[tuple[str, str]] = set()
    for violation in await audit(store):
        found |= {(violation.invariant, violation.run_id), (violation.invariant, violation.workflow_id)}
    missed = {name for place, name in planted.items() if place not in found}
    assert not missed, f"planted and not found: {missed}"
    assert len(planted) == len(PLANTS) >= 35
    assert {invariant for invariant, _ in planted} == {f"I{number}" for number in range(1, 13)}


async def test_the_auditor_finds_everything_that_was_planted_in_memory() -> None:
    store = MemoryStore()
    await check_plants(store, lambda: MemoryHand(store))


async def test_the_auditor_finds_everything_that_was_planted_in_a_file(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "audit.db", synchronous="normal")
    await check_plants(store, lambda: SQLiteHand(tmp_path / "audit.db"))
    await store.close()


async def test_the_auditor_finds_everything_that_was_planted_in_postgresql(
    empty_schema_url: str, janitor: Janitor, shared_schema: str
) -> None:
    store = PostgresStore(empty_schema_url)
    await check_plants(store, lambda: PostgresHand(janitor, shared_schema))
    await store.close()


async def test_a_store_with_only_the_public_protocol_is_audited_too() -> None:
    class Foreign:
        url = "foreign:"

        def __init__(self, store: MemoryStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

    inner = MemoryStore()
    store: Any = Foreign(inner)
    families = await build(inner, ["one", "two"])
    assert await audit(store) == []
    MemoryHand(inner).delete("timers", families["one"].mother)
    MemoryHand(inner).change("activities", families["two"].mother, claim="token", worker="ghost")
    found = {(item.invariant, item.run_id) for item in await audit(store)}
    assert found == {("I7", families["one"].mother), ("I5", families["two"].mother)}
