"""What was once recorded is replayed the same for ever, byte by byte, in any process. (G26)

`DERECHO_MATRIX=1` replays in 24 environments and more, on every Python that is installed.
"""

import os
import random
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

import derecho
from derecho.journal.events import ActivityScheduled
from tests.reference.corpus import CHECKSUMS, checksum, golden, load, name_of
from tests.reference.environments import build_locales, few, other_pythons, pairwise
from tests.reference.replaying import as_bytes, asked_for, fingerprint
from tests.reference.workflows import REFERENCE
from tests.runtime.programs import compensating, completing, story, waiting

FLOOR = 200
"""So many histories the corpus has at least; it only grows."""
TRIES = 200


def test_histories_are_added_and_never_edited() -> None:
    lines = [line.split("  ") for line in CHECKSUMS.read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    found = {name_of(path): checksum(path) for path in golden()}
    assert {name for name in listed if listed[name] != found.get(name)} == set(), "changed, or gone"
    assert set(found) - set(listed) == set(), "without a checksum: was it recorded by tests.reference.record?"
    assert len(found) >= FLOOR


def test_the_corpus_has_every_reference_workflow_and_every_common_event() -> None:
    histories = [load(path) for path in golden()]
    assert {history.workflow_type for history in histories} == set(REFERENCE)
    counts = Counter(event["type"] for history in histories for event in history)
    assert EVENTS - set(counts) == set()


EVENTS = set(
    [
        "workflow_started",
        "workflow_completed",
        "workflow_failed",
        "workflow_cancelled",
        "workflow_continued_as_new",
        "workflow_terminated",
        "activity_scheduled",
        "activity_completed",
        "activity_failed",
        "activity_timed_out",
        "activity_cancel_requested",
        "timer_scheduled",
        "timer_fired",
        "timer_cancelled",
        "step_scheduled",
        "step_completed",
        "step_failed",
        "side_effect_recorded",
        "patch_marked",
        "signal_received",
        "signal_sent",
        "signal_delivered",
        "signal_undelivered",
        "cancel_requested",
        "child_scheduled",
        "child_started",
        "child_refused",
        "child_completed",
        "child_failed",
        "child_cancel_requested",
    ]
)


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_every_golden_history_replays(name: str) -> None:
    paths = [path for path in golden() if path.parent.name == name]
    assert len(paths) >= 10
    for path in paths:
        derecho.replay(REFERENCE[name], str(path))


def test_code_asks_for_the_very_bytes_that_it_was_recorded_to_ask_for() -> None:
    compared = 0
    for path in golden():
        for asked, recorded in asked_for(load(path)):
            compared += 1
            assert as_bytes(asked) == as_bytes(recorded), name_of(path)
    assert compared >= 1_500


def test_a_byte_that_differs_is_seen() -> None:
    """The comparison above can fail: history's input of one activity is another."""
    history = load(next(path for path in golden() if path.parent.name == "fan_out"))
    event = next(event for task in history.tasks for event in task.events if event["type"] == "activity_scheduled")
    event["input"] = [{"json": -1}]
    differing = [asked for asked, recorded in asked_for(history) if as_bytes(asked) != as_bytes(recorded)]
    assert [type(asked) for asked in differing] == [ActivityScheduled]


def test_no_process_replays_differently(tmp_path: Path) -> None:
    here = [f"{name_of(path)} {fingerprint(load(path))}" for path in golden()]
    has_locales = build_locales(tmp_path)
    thorough = bool(os.environ.get("DERECHO_MATRIX"))
    environments = pairwise([sys.executable, *other_pythons(tmp_path)]) if thorough else few()
    seen = []
    for environment in environments:
        if not has_locales:
            environment = replace(environment, locale="C")
        kind, *there = environment.replay(tmp_path)
        seen.append(kind)
        assert there == here, environment
    assert len(here) * len(seen) >= (24 if thorough else 4) * FLOOR
    assert len(set(seen)) >= 4, "the environments did not differ"
    print(f"{len(here)} histories x {len(seen)} environments:", *sorted(set(seen)), sep="\n")


@pytest.mark.parametrize("program", [waiting, completing, compensating], ids=lambda program: str(program.name))
def test_heap_noise_gives_one_order_in_200_tries(program: derecho.WorkflowDefinition) -> None:
    kept: list[object] = []
    stories: Counter[str] = Counter()
    for _ in range(TRIES):
        kept.extend(bytearray(random.randrange(500)) for _ in range(50))
        random.shuffle(kept)
        del kept[: len(kept) // 2]
        stories[story(program)] += 1
    assert list(stories.values()) == [TRIES]
