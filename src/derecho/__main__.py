"""`python -m derecho check module:workflows --store URL`: is this code safe for the runs that are open?"""

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Sequence

from derecho.checking import check
from derecho.errors import StoreError
from derecho.workflow import WorkflowDefinition


def workflows_of(target: str) -> list[WorkflowDefinition]:
    """All workflows of a module, or those that a name in it stands for: one, or a list."""
    module, _, name = target.partition(":")
    found = importlib.import_module(module)
    value = getattr(found, name) if name else list(vars(found).values())
    values = value if isinstance(value, Sequence) else [value]
    return list({id(item): item for item in values if isinstance(item, WorkflowDefinition)}.values())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m derecho")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="replay the open runs of a database against the code at hand")
    checking.add_argument("target", nargs="+", help="module, or module:name of a workflow or a list of them")
    checking.add_argument("--store", required=True, help="sqlite:///orders.db, postgresql://host/database")
    checking.add_argument("--closed", type=int, default=20, help="closed runs to try, newest first (20)")
    checking.add_argument("--processes", type=int, default=None, help="replays at once (one per CPU)")
    given = parser.parse_args(arguments)
    sys.path.insert(0, os.getcwd())
    try:
        workflows = [workflow for target in given.target for workflow in workflows_of(target)]
    except (ImportError, AttributeError) as exc:
        parser.error(f"the workflows cannot be imported: {exc}")
    if not workflows:
        parser.error(f"there is no workflow in {', '.join(given.target)}")

    def progress(count: int, workflow_id: str) -> None:
        if count % 1000 == 0:
            print(f"{count} runs checked", file=sys.stderr)

    checked = check(given.store, workflows, closed=given.closed, processes=given.processes, progress=progress)
    try:
        report = asyncio.run(checked)
    except StoreError as exc:
        parser.error(str(exc))
    print(report)
    return report.exit_status


if __name__ == "__main__":
    sys.exit(main())
