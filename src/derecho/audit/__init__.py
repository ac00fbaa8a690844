"""The auditor: reads a whole store and says what cannot be, if Derecho keeps its word.

    violations = await audit(store)
    assert not violations, "\\n".join(map(str, violations))

It asks every store the same twelve questions, I1 to I12 (see `checks` and `between`). Derecho's own stores are read in
one transaction, so engines may be at work meanwhile; one that only has the public protocol is read call by call, so
nothing may happen to it then. Everything is read into memory.
"""

from derecho.audit.between import check_runs
from derecho.audit.checks import Violation, check_run
from derecho.audit.snapshot import Snapshot, look
from derecho.journal.store import Store

__all__ = ["Snapshot", "Violation", "audit", "check", "look"]


async def audit(store: Store, *, retention: bool = False) -> list[Violation]:
    """Everything that is wrong in a store; empty when nothing is. Raises what the store raises.

    With `retention`, closed runs may have been deleted: that a parent, a successor or a sender is gone is then right.
    """
    return check(await look(store), retention=retention)


def check(snapshot: Snapshot, *, retention: bool = False) -> list[Violation]:
    """What is wrong in the rows of a store."""
    found: list[Violation] = []
    for run in snapshot.runs.values():
        found += check_run(snapshot, run)
    return found + check_runs(snapshot, retention)
