"""A small run of the demo's workflow in this process, with the real shop: evidence that every proof accepts."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from crashtest.evidence import Evidence, Kill, collect
from crashtest.oracle import DONE, NO_WAY, expected, is_approved, needs_approval
from crashtest.orders import Entry, read_orders
from derecho import ActivityDefinition, Engine
from order import approval, charge, order_workflow, refund, release, reserve, ship
from shop.client import Shop
from shop.ledger import Ledger
from shop.rules import SHELF
from shop.service import make_server
from tests.house.repository import ROOT

ONE_OF_EACH = ["order-0003", "order-0007", "order-0008", "order-0009", "order-0011"]


@asynccontextmanager
async def running_shop(ledger_path: Path) -> AsyncIterator[int]:
    """A shop in fine weather on a thread of its own; gives its port."""
    ledger = Ledger(ledger_path, SHELF)
    server = make_server(ledger, seed=None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        ledger.close()


def some_orders() -> list[Entry]:
    """A few of each ending, large ones too."""
    entries = read_orders(ROOT / "examples" / "orders.jsonl")
    large = [
        entry for entry in entries if needs_approval(entry.raw) and expected(entry.raw).effects.get("charge") == DONE
    ]
    refused = next(entry for entry in large if not is_approved(entry.raw))
    far = next(entry for entry in large if expected(entry.raw).effects.get("ship") == NO_WAY)
    chosen = [entry for entry in entries if entry.order.id in ONE_OF_EACH]
    return list({entry.order.id: entry for entry in (*chosen, large[0], refused, far)}.values())


async def run_orders(folder: Path) -> Evidence:
    entries, began_at = some_orders(), time.time()
    activities: list[ActivityDefinition] = [reserve, charge, ship, release, refund]
    async with running_shop(folder / "shop.db") as port:
        shop: dict[type[Any], Any] = {Shop: Shop(port)}
        engine = Engine("memory:", workflows=[order_workflow], activities=activities, resources=shop)
        async with engine:
            handles = [
                await engine.client.start(order_workflow.bind(entry.order), id=entry.order.id) for entry in entries
            ]
            await asyncio.sleep(0.5)
            kill = Kill("worker-1", 4711, began_at, time.time())
            for entry, handle in zip(entries, handles, strict=True):
                if needs_approval(entry.raw):
                    await handle.signal(approval, is_approved(entry.raw))
            outcomes = {handle.id: await handle.result(timeout=20) for handle in handles}
            return await collect(engine.client, entries, outcomes, [kill], folder / "shop.db")


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """True evidence; forge copies of it, never itself."""
    return asyncio.run(run_orders(tmp_path_factory.mktemp("demo")))
