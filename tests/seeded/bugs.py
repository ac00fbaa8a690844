"""All seeded bugs."""

from tests.seeded import engine_bugs, replay_bugs, store_bugs

QUICK = {"R01", "R03b", "R05", "R06", "R08b", "R14", "R16", "R22", "M32", "M33b", "M49"}
"""Those that are sown each time: they die in a second or two."""

BUGS = [*replay_bugs.BUGS, *engine_bugs.BUGS, *store_bugs.BUGS]
