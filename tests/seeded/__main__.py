"""The whole farm as a report: python -m tests.seeded [NAME…]"""

import sys
import tempfile
from pathlib import Path

from tests.seeded.bugs import BUGS
from tests.seeded.farm import LIMIT, Farm, line


def main(*names: str) -> int:
    bugs = [bug for bug in BUGS if not names or bug.name in names]
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        farm = Farm(Path(folder) / "tree")
        for bug in bugs:
            try:
                result = farm.test(bug)
            except ValueError as exc:
                print(exc, flush=True)
                alive += 1
                continue
            alive += not result.is_red
            print(line(bug, result), flush=True)
            if not result.is_red and not result.is_green:
                print(result.output)
        clean = farm.run((test for bug in bugs for test in bug.tests), limit=10 * LIMIT)
        print(f"without a bug the tests are {'green' if clean.is_green else 'RED'} in {clean.seconds:.0f} s")
        if not clean.is_green:
            print(clean.output)
    print(f"{len(bugs) - alive} of {len(bugs)} bugs killed")
    return 0 if alive == 0 and clean.is_green else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
