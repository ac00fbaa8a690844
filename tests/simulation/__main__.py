"""`python -m tests.simulation SEED [COUNT]`: run seeds, say what they did, report those that fail."""

import sys
from collections import Counter

from tests.simulation.faults import MARKS
from tests.simulation.report import failure_of, report


def main(first: int, count: int) -> int:
    faults: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    failed = []
    for seed in range(first, first + count):
        simulation, error = failure_of(seed)
        faults += simulation.faults.fired
        marks += simulation.server.marks
        if error is not None:
            failed.append(seed)
            print(report(seed), flush=True)
    print(f"{count} seeds, {len(failed)} failed: {failed}; {sum(faults.values())} faults: {dict(faults)}")
    print(f"marks: {dict(marks)}; never reached: {sorted(MARKS - marks.keys())}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
