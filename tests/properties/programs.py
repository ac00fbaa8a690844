"""Random workflow programs as plain JSON: trees of operations, and what comes from outside while they run.

Numbers name the operations; the length of everything that takes time is drawn from the number, to the microsecond, so
that no two things ever happen in the same instant and a program has one order of facts.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Node = dict[str, Any]

_QUICK = ("effect", "random", "uuid", "now", "patched", "yield", "trysignal")
_SLOW = ("act", "act", "step", "sleep", "sleep", "signal", "flaky")
_PARTS = ("seq", "gather", "settle", "wait", "completed", "group", "select", "semaphore", "lock", "saga", "barrier")
_BODY = ("timeout", "waitfor", "cancel", "shield", "finally", "catch", "child", "childcancel", "childwait", "go")
_COUNTS = ("channel", "queue", "map", "mapchildren")
OPERATIONS = sorted({*_QUICK, *_SLOW, *_PARTS, *_BODY, *_COUNTS, "raise"})


def nodes(depth: int) -> st.SearchStrategy[Node]:
    """An operation with at most `depth` levels below it."""
    slow = st.builds(_slow, st.sampled_from(_SLOW), st.integers(0, 3), st.integers(0, 9))
    leaves = st.one_of(slow, slow, st.builds(_leaf, st.sampled_from(_QUICK)), st.builds(_raises, st.integers(0, 3)))
    if depth == 0:
        return leaves
    below = st.deferred(lambda: nodes(depth - 1))
    parts = st.builds(_parts, st.sampled_from(_PARTS), st.lists(below, min_size=2, max_size=4), st.booleans())
    bodies = st.builds(_body, st.sampled_from(_BODY), below, below, st.integers(0, 2))
    counts = st.builds(_count, st.sampled_from(_COUNTS), st.integers(1, 5), st.integers(0, 3), st.integers(0, 9))
    return st.one_of(leaves, parts, parts, bodies, bodies, counts)


def _leaf(op: str) -> Node:
    return {"op": op}


def _raises(odds: int) -> Node:
    return {"op": "raise" if odds == 3 else "sleep"}


def _slow(op: str, size: int, odds: int) -> Node:
    return {"op": op, "size": size, "fails": odds == 7}


def _parts(op: str, parts: list[Node], flag: bool) -> Node:
    return {"op": op, "parts": parts, "flag": flag}


def _body(op: str, body: Node, other: Node, mode: int) -> Node:
    return {"op": op, "body": body, "mode": mode, **({"other": other} if op == "finally" else {})}


def _count(op: str, count: int, size: int, odds: int) -> Node:
    return {"op": op, "count": count, "size": size, "fails": odds == 7}


def _program(runs: list[list[Node]], outside: list[tuple[int, int]]) -> Node:
    program = {"runs": [{"op": "seq", "parts": parts, "flag": False} for parts in runs], "outside": outside}
    for number, node in enumerate(walk(program), 1):
        node["id"] = number
    return program


def programs() -> st.SearchStrategy[Node]:
    """One to three runs, each continued as the next; signals and at times a request to cancel from outside."""
    run = st.lists(nodes(3), min_size=2, max_size=5)
    outside = st.tuples(st.integers(0, 11), st.integers(1, 40))
    return st.builds(
        _program,
        st.one_of(st.lists(run, min_size=1, max_size=1), st.lists(run, min_size=1, max_size=3)),
        st.lists(outside, max_size=5),
    )


def walk(tree: Any) -> Iterator[Node]:
    """All operations, outer ones first."""
    if isinstance(tree, dict):
        if "op" in tree:
            yield tree
        for value in tree.values():
            yield from walk(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from walk(value)


def count(program: Node) -> Counter[str]:
    return Counter(node["op"] for node in walk(program))


def seconds(number: int, part: int = 0) -> float:
    """How long something takes: hours, and never the same twice."""
    drawn = hashlib.blake2b(f"{number}/{part}".encode(), digest_size=8).digest()
    return 1_000 + int.from_bytes(drawn, "big") % 36_000_000_000 / 1_000_000
