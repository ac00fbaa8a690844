"""Random workflow programs: run straight, taken out of memory after each workflow task, replayed from every prefix.

`DERECHO_FUZZ` sets how many programs are made; `make fuzz` takes 2,000.
"""

import os
from collections import Counter
from typing import Any

from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from derecho.journal import events as ev
from tests.properties.language import OPERATIONS
from tests.properties.world import World

PROGRAMS = int(os.environ.get("DERECHO_FUZZ", "200"))

seconds = st.sampled_from([0.0, 0.5, 2.0, 30.0])
signals = st.sampled_from(["red", "blue"])
small = st.integers(1, 4)
leaves = st.one_of(
    st.builds(lambda n: ["activity", n], small),
    st.builds(lambda s: ["sleep", s], seconds),
    st.builds(lambda n: ["step", n], small),
    st.builds(lambda n: ["child", n], small),
    st.builds(lambda n: ["dropped", n], small),
    st.builds(lambda s: ["receive", s], signals),
    st.builds(lambda s: ["poll", s], signals),
    st.builds(lambda s, t: ["select", s, t], signals, seconds),
    st.builds(lambda c, n: ["channel", c, n], st.integers(0, 2), small),
    st.builds(lambda n, k: ["fan_out", n, k], small, small),
    st.sampled_from([["chance"], ["clock"], ["again"]]),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=4)
    names = st.sampled_from(["sequence", "gather", "group", "first_of", "as_completed", "fibers", "saga", "queue"])
    return st.one_of(
        st.builds(lambda name, body: [name, *body], names, several),
        st.builds(lambda name, body: [name, body], st.sampled_from(["caught", "shielded"]), inner),
        st.builds(lambda t, body: ["limited", t, body], seconds, inner),
        st.builds(lambda body, after: ["cleanup", body, after], inner, inner),
    )


blocks = st.recursive(leaves, nested, max_leaves=8).map(lambda body: ["caught", body])
programs = st.lists(blocks, min_size=2, max_size=4).map(lambda bodies: ["sequence", *bodies, ["clock"]])

made: Counter[str] = Counter()
finished: Counter[str] = Counter()
statistics: Counter[str] = Counter()


def constructs(op: list[Any]) -> Counter[str]:
    found = Counter([op[0]])
    for item in op[1:]:
        if isinstance(item, list):
            found += constructs(item)
    return found


@seed(20261122)
@settings(max_examples=PROGRAMS, phases=[Phase.generate, Phase.shrink])
@given(programs, st.integers(0, 2**32))
def check_one_program(body: list[Any], chance: int) -> None:
    made.update(constructs(body))
    world = World(body, chance)
    outcome = world.live()
    statistics[ev.kind(outcome)] += 1
    for upto in range(len(world.tasks)):
        # Taken out of memory after each task: the rebuilt code asks for the same things as the code that stayed.
        execution = world.replayed(upto)
        task = world.tasks[upto]
        assert execution.activate(task.facts, task.at) == task.commands, f"differs at task {upto + 1}"
        execution.close()
        statistics["evictions"] += 1
    whole = world.replayed(len(world.tasks))
    assert whole.outcome == outcome
    whole.close()
    finished.update(constructs(body))


def test_a_program_gives_the_same_history_wherever_it_is_interrupted() -> None:
    check_one_program()
    print(f"{PROGRAMS} programs asked for: {dict(statistics)}")
    print(f"finished constructs: {dict(finished)}")
    missing = set(OPERATIONS) - set(finished)
    assert not missing, f"constructs that no finished program had: {sorted(missing)}"
    ended = sum(count for name, count in statistics.items() if name.startswith("workflow_"))
    assert ended >= 0.95 * PROGRAMS, f"only {ended} of {PROGRAMS} programs ended"
    assert statistics["workflow_completed"] >= 0.4 * ended, f"too few completed: {dict(statistics)}"
    assert statistics["evictions"] >= 3 * PROGRAMS
