"""A worker process: `python worker.py DATABASE SHOP_PORT NAME` works on orders until SIGTERM, or until it is killed.

Everything that it knows is in the database, so that any other worker can go on where it stopped. Its lease is short:
when it dies, its work is free again after a second and a half.
"""

import asyncio
import logging
import os
import sys
import threading

from derecho import Engine
from order import charge, order_workflow, refund, release, reserve, ship
from shop.client import Shop


def end_with_parent() -> None:
    """Whoever started this process holds its standard input; an orphan has nothing left to do."""
    while os.read(0, 1024):  # not sys.stdin: its lock, held by a thread, would abort the interpreter at its end
        pass
    os._exit(1)


async def main(database: str, port: str, name: str) -> None:
    engine = Engine(
        f"sqlite:///{database}",
        workflows=[order_workflow],
        activities=[reserve, charge, ship, release, refund],
        resources={Shop: Shop(int(port))},
        worker_id=name,
        lease=1.5,
    )
    await engine.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    threading.Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(main(*sys.argv[1:]))
