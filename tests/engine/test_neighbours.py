"""Who has died on this machine is known at once: its work waits for no lease."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import derecho
from derecho import Client, Context
from derecho.engine.neighbours import has_died, own_name
from derecho.stores import open_store
from tests.support.world import engine_of, eventually

ROOT = Path(__file__).parents[2]
HOUR = 3_600.0

pytestmark = pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="only Linux says what a process is")


@derecho.activity(retry=derecho.RetryPolicy(initial_interval=0))
async def attempt() -> int:
    act = derecho.current_activity()
    if act.attempt == 1:
        await asyncio.sleep(HOUR)
    return act.attempt


@derecho.workflow
async def order(ctx: Context) -> int:
    return await attempt.execute(ctx)


async def work(url: str) -> None:
    """The process that will die."""
    async with engine_of(open_store(url), order, attempt, lease=HOUR):
        await asyncio.sleep(HOUR)


def of_a_dead_process() -> str:
    with subprocess.Popen(["true"]) as process:
        pass
    return own_name().replace(f"-{os.getpid()}-", f"-{process.pid}-")


@pytest.mark.parametrize("store_url", ["sqlite", "postgres"], indirect=True)
async def test_the_next_engine_on_this_machine_goes_on_with_the_work_of_one_that_was_killed(store_url: str) -> None:
    process = await asyncio.to_thread(
        lambda: subprocess.Popen([sys.executable, "-m", "tests.engine.test_neighbours", store_url], cwd=ROOT)
    )
    async with Client(store_url) as client:
        try:
            handle = await client.start(order.bind())
            await eventually(lambda: has_begun(client, handle.run_id))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        async with engine_of(client.store, order, attempt, lease=HOUR):
            assert await handle.result(timeout=30) == 2
            assert len(await client.store.workers()) == 1


async def has_begun(client: Client, run_id: str) -> bool:
    return any(row.started_at for row in (await client.store.pending(run_id)).activities)


def test_a_process_that_is_no_more_has_died_and_one_that_lives_has_not() -> None:
    assert has_died(of_a_dead_process())
    assert not has_died(own_name())


@pytest.mark.parametrize(
    "foreign",
    [
        lambda name: name.replace(socket.gethostname(), "elsewhere"),
        lambda name: name[:-1] + ("0" if name[-1] != "0" else "1"),
        lambda name: name.rpartition("-")[0],
        lambda name: f"orders-{name}",
        lambda name: "orders",
    ],
    ids=["another host", "another boot or container", "no boot", "a longer name", "a name of its own"],
)
def test_whoever_is_not_of_this_machine_is_left_to_its_lease(foreign: Callable[[str], str]) -> None:
    assert not has_died(foreign(of_a_dead_process()))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
