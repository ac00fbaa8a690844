"""`make demo`: real orders, real side effects, and a worker that is killed again and again, with proof at the end.

Starts a shop (another process with its own database), a worker, and 240 orders; kills the worker with SIGKILL at random
moments, starts it again, and then shows from outside that every order ended rightly and nothing was paid twice.

Exit status: 0 when every proof holds, 1 when one fails or the show cannot go on, 2 for wrong options or orders.
"""

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from crashtest.children import EXAMPLES, ChildFailed, Children
from crashtest.drive import Show, Stalled, run_show
from crashtest.evidence import Evidence, collect
from crashtest.orders import Entry, OrdersError, read_orders
from crashtest.proofs import prove
from crashtest.report import report
from crashtest.screen import Screen, open_screen
from derecho import Client, DerechoError


async def play(show: Show, screen: Screen, folder: Path, seed: int) -> Evidence:
    """The whole show; returns what it left behind, when every process has ended."""
    database, ledger = folder / "orders.db", folder / "shop.db"
    async with Children(folder) as children, Client(f"sqlite:///{database}") as client:
        service = await children.start("shop", ["-m", "shop.service", str(ledger), "--seed", str(seed)])
        port = await service.first_line()
        screen.say(f"shop started (pid {service.pid}, port {port})", at=show.elapsed)
        await run_show(show, screen, client, children, ["worker.py", str(database), port], ledger)
        screen.say("all orders have ended; stopping the worker and reading the books", at=show.elapsed)
        if show.worker and await show.worker.stop():
            show.worker.check()
        service.check()
        return await collect(client, show.entries, show.outcomes, show.kills, ledger)


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def perform(options: argparse.Namespace, entries: Sequence[Entry], folder: Path) -> bool:
    """Play and prove; True when every proof holds."""
    show = Show(entries, options.kills, random.Random(options.seed))
    with open_screen() as screen:
        screen.say(
            f"{len(entries)} orders from {options.orders.name}, seed {options.seed}, files in {folder}", style="bold"
        )
        try:
            evidence = asyncio.run(play(show, screen, folder, options.seed))
            proofs = prove(evidence, options.kills)
            report(screen, evidence, proofs)
            failures = [f"this is not proved: {proof.title}" for proof in proofs if not proof.holds]
        except* (ChildFailed, Stalled, DerechoError) as group:
            failures = [str(error) for error in leaves(group)]
        screen.say("")
        for failure in failures:
            screen.say(f"FAILED: {failure}", style="bold red")
        if not failures:
            lines = len((EXAMPLES / "order.py").read_text().splitlines())
            next_step = f"Now read examples/order.py: {lines} lines, and none of them handles a crash."
            screen.say(f"PASSED in {show.elapsed:.1f} s. {next_step}", style="bold green")
            screen.say(f"Try:  make demo ARGS='--kills 6'   make demo ARGS='--seed {options.seed} --keep'")
    return not failures


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo.py", description="Kill a worker at work, and prove that nothing was lost."
    )
    parser.add_argument("--orders", type=Path, default=EXAMPLES / "orders.jsonl", help="a JSON Lines file of orders")
    parser.add_argument("--kills", type=int, default=3, help="how often the worker is killed (3)")
    parser.add_argument("--seed", type=int, help="of the delays, failures and moments of the kills (random)")
    parser.add_argument("--keep", action="store_true", help="keep the databases and logs")
    options = parser.parse_args(arguments)
    if options.kills < 1:
        parser.error("--kills: at least 1, or there is nothing to prove")
    if options.seed is None:
        options.seed = random.randrange(10_000)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        entries = read_orders(options.orders)
    except OrdersError as error:
        print(f"demo.py: {error}", file=sys.stderr)
        return 2
    if len(entries) <= options.kills:
        print(f"demo.py: {options.kills} kills need at least {options.kills + 1} orders", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="derecho-demo-"))
    logging.basicConfig(filename=folder / "demo.log")
    holds = False
    try:
        holds = perform(options, entries, folder)
    except KeyboardInterrupt:
        print("\ninterrupted; every process that this demo started has ended", file=sys.stderr)
        return 130
    finally:
        if holds and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"databases and logs: {folder}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
