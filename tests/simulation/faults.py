"""What may go wrong in a simulation, how often, and which rare things must have been seen."""

import random
from collections import Counter
from dataclasses import dataclass, field

NETWORK = ("refused", "lost request", "lost answer", "late request", "twice", "robbed")
"""Faults of one call: nothing was done; it did not arrive; it was done; it will be; it is done twice; the claim of one
transition of a batch is taken away before it arrives. After the second, third and fourth the caller does not know."""

CHAOS = ("crash", "pause", "long pause", "restart", "evict", "clock forward", "clock back", "terminate")
"""Faults that strike between any two steps."""

CALLS = ("crash before commit", "crash after commit")
SETTINGS = ("slow network", "lost hints", "no cache", "small cache", "late registration", "skewed clocks", "reordered")
ALL = (*NETWORK, *CHAOS, *CALLS, *SETTINGS)

MARKS = frozenset(
    {
        "a dead engine was buried",
        "an engine found that it was buried",
        "a stale workflow task was refused",
        "a stale outcome of an attempt was refused",
        "a commit was known only when it was repeated",
        "a batch was refused in part",
        "a closing run was held back by a message",
        "a suspect was claimed",
        "a lost activity was attempted again",
        "an attempt ran out of time",
        "a progress of an attempt before came back",
        "a run moved to another engine",
        "a result went by the inbox",
        "a timer had fired already",
        "a signal came twice and was taken once",
        "a signal between runs was delivered",
        "a signal between runs found nobody",
        "a child was refused",
        "a run was asked to terminate by its parent",
        "a run continued as new",
        "a run was cancelled",
        "a run was terminated",
        "a run failed",
        "a step ran again",
        "a run was rebuilt from its history",
        "a start was repeated",
        "a stopped engine came back after its lease",
    }
)


@dataclass
class Faults:
    """The faults of one seed. `on` are those that may strike; `fired` counts those that did."""

    dice: random.Random
    on: set[str]
    active: bool = True
    fired: Counter[str] = field(default_factory=Counter)

    @classmethod
    def draw(cls, dice: random.Random, without: frozenset[str]) -> "Faults":
        """A random half of all faults, at least two of the network among them."""
        on = {name for name in ALL if dice.random() < 0.5} | set(dice.sample(NETWORK, 2))
        return cls(dice, on - without)

    def strikes(self, name: str, chance: float) -> bool:
        if not self.active or name not in self.on or self.dice.random() >= chance:
            return False
        self.fired[name] += 1
        return True

    def has(self, name: str) -> bool:
        """A setting, which is no event: it is not counted."""
        return self.active and name in self.on
