"""Which function applies which change, and how a transition takes effect whole or not at all."""

from derecho.journal import changes as ch
from derecho.stores.memory import runs, tasks
from derecho.stores.memory.tables import Tables
from derecho.stores.transitions import Stop, functions_in

APPLY = functions_in(runs, tasks)
_DONE = ch.Receipt()


def apply(tables: Tables, transition: ch.Transition) -> ch.Result:
    """One transition, whole or not at all; its text has been found fit."""
    mark = len(tables.undo)
    delivered: list[tuple[str, int, bool]] = []
    try:
        for change in transition:
            outcome = APPLY[type(change)](tables, change)
            if outcome is not None:
                delivered.append(outcome)
    except Stop as stopped:
        tables.roll_back(mark)
        return stopped.result
    return ch.Receipt(tuple(delivered)) if delivered else _DONE
