"""What to know about a seed that failed: where, which faults it takes, the end of its trace, how to see it again."""

import platform
import subprocess
from pathlib import Path

from tests.simulation.simulation import Simulation

_LINES = 60


def failure_of(seed: int, without: frozenset[str] = frozenset()) -> tuple[Simulation, Exception | None]:
    simulation = Simulation(seed, without)
    try:
        simulation.run()
    except Exception as exc:  # whatever a simulation raises is what it found
        return simulation, exc
    return simulation, None


def shrunk(seed: int) -> frozenset[str]:
    """The faults that this failure can do without; another schedule may fail for another reason."""
    without: frozenset[str] = frozenset()
    for name in sorted(Simulation(seed).faults.on):
        if failure_of(seed, without | {name})[1] is not None:
            without |= {name}
    return without


def report(seed: int) -> str:
    """Text for people; takes some twenty runs of the seed."""
    without = shrunk(seed)
    simulation, error = failure_of(seed, without)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    lines = simulation.server.lines
    return "\n".join(
        [
            f"seed {seed} fails: {type(error).__name__}: {error}",
            f"commit {commit.stdout.strip() or 'unknown'}, Python {platform.python_version()}",
            f"faults that it takes: {', '.join(sorted(simulation.faults.on))}",
            f"the last {min(_LINES, len(lines))} of {len(lines)} lines of its trace:",
            *lines[-_LINES:],
            f"to repeat it: python -m tests.simulation {seed}",
        ]
    )
