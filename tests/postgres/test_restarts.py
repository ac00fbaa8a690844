"""The server restarts under load, politely and by crash; engines wait for it and nothing acknowledged is lost."""

import asyncio
import os
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import derecho
from derecho import Client, Engine
from derecho.errors import StoreUnavailable
from tests.postgres.test_lost_connections import GO, double, order
from tests.support.audits import assert_sound
from tests.support.postgres import own_server, reachable, run_unprivileged, server_binaries

RESTARTS = int(os.environ.get("DERECHO_RESTARTS", "5"))


def restart(url: str, mode: str) -> None:
    directory = Path(parse_qs(urlsplit(url).query)["host"][0])
    run = run_unprivileged(directory)
    binaries = reachable(server_binaries(), directory, run)
    command: list[str | Path] = [
        binaries / "pg_ctl",
        "restart",
        "--wait",
        f"--mode={mode}",
        f"--pgdata={directory}/data",
    ]
    subprocess.run([*command, f"--log={directory}/log"], check=True, stdout=subprocess.DEVNULL, timeout=60, **run)


@pytest.mark.skipif("DERECHO_TEST_POSTGRES_URL" in os.environ, reason="a server of somebody else's is not restarted")
async def test_no_acknowledged_start_or_signal_is_lost_when_the_server_restarts() -> None:
    acknowledged: list[int] = []
    with own_server() as server:
        url = f"{server}&durable=off"
        async with Engine(url, workflows=[order], activities=[double], lease=5) as engine, Client(url) as client:

            async def go_on() -> None:
                for number in range(100_000):
                    try:
                        await client.start(order.bind(number), id=f"w{number}", signals=[(GO, number)])
                    except StoreUnavailable:
                        await asyncio.sleep(0.05)
                    else:
                        acknowledged.append(number)
                    await asyncio.sleep(0.01)

            load = asyncio.create_task(go_on())
            for turn in range(RESTARTS):
                await asyncio.sleep(0.3)
                await asyncio.to_thread(restart, server, "immediate" if turn % 2 else "fast")
                before = len(acknowledged)
                async with asyncio.timeout(30):
                    while len(acknowledged) == before:  # noqa: ASYNC110  # from outside there is nothing to wait for
                        await asyncio.sleep(0.01)
            load.cancel()
            assert len(acknowledged) >= 3 * RESTARTS
            for number in acknowledged:
                handle = client.get(order, f"w{number}")
                assert await handle.result(timeout=60) == 4 * number
                history = await handle.history()
                derecho.replay(order, history)
                assert sum(event["type"] == "activity_completed" for event in history) == 2
            await assert_sound(client.store)
            assert engine.incarnation
