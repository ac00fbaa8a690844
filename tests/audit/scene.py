"""A store with runs in every state, built by a real engine: one family for each thing that a test will break."""

import asyncio
from dataclasses import dataclass

import derecho
from derecho import Client, Context, Engine, Signal, Store
from tests.support.world import eventually

WORD = Signal("word", str)


@derecho.activity
async def unserved(name: str) -> str:
    return name


@derecho.workflow
async def kid(ctx: Context) -> str:
    return await ctx.signals(WORD).receive()


@derecho.workflow
async def mother(ctx: Context, family: str) -> None:
    await ctx.signal(f"{family}-target", WORD, "to target")
    await ctx.signal(f"{family}-deaf", WORD, "to deaf")
    children = [ctx.child(kid.bind(), id=f"{family}-{name}") for name in ("kid", "lost kid")]
    await asyncio.gather(ctx.sleep(10**7), ctx.sleep(0.01), ctx.execute(unserved.bind(family)), *children)


@derecho.workflow
async def target(ctx: Context) -> None:
    while True:
        await ctx.signals(WORD).receive()


@derecho.workflow
async def done(ctx: Context) -> str:
    return "done"


@derecho.workflow
async def chain(ctx: Context, last: bool) -> None:
    if not last:
        raise ctx.continue_as_new(chain.bind(True))
    await ctx.signals(WORD).receive()


@derecho.workflow
async def deaf(ctx: Context) -> None:
    """No engine serves it: its messages stay unread."""


@dataclass
class Family:
    """The run ids of one family."""

    name: str
    mother: str = ""
    kid: str = ""
    lost_kid: str = ""
    target: str = ""
    done: str = ""
    old: str = ""
    new: str = ""
    deaf: str = ""


async def build(store: Store, names: list[str]) -> dict[str, Family]:
    """Families of runs that wait, sleep, have closed or never began; no engine is left."""
    families = {name: Family(name) for name in names}
    engine = Engine(
        store,
        workflows=[mother, kid, target, done, chain],
        lease=60,
        shutdown_timeout=0.01,
        cache_size=100_000,
    )
    async with Client(store) as client:
        for family in families.values():
            await _start(client, family)
        async with engine:
            await eventually(lambda: _settled(store, names))
        for family in families.values():
            family.new = (await client.find(f"{family.name}-chain")).run_id
            family.kid = (await client.find(f"{family.name}-kid")).run_id
            family.lost_kid = (await client.find(f"{family.name}-lost kid")).run_id
            await client.get(kid, f"{family.name}-lost kid").terminate()  # unread in its parent's inbox
            await client.get(mother, f"{family.name}-mother").signal(WORD, "unread")
    return families


async def _start(client: Client, family: Family) -> None:
    name = family.name
    family.deaf = (await client.start(deaf.bind(), id=f"{name}-deaf")).run_id or ""
    family.target = (await client.start(target.bind(), id=f"{name}-target")).run_id or ""
    family.mother = (await client.start(mother.bind(name), id=f"{name}-mother")).run_id or ""
    family.done = (await client.start(done.bind(), id=f"{name}-done")).run_id or ""
    family.old = (await client.start(chain.bind(False), id=f"{name}-chain")).run_id or ""


async def _settled(store: Store, names: list[str]) -> bool:
    """Each mother waits and one of her timers has fired, each chain has come to its second run."""
    for name in names:
        for role in ("mother", "kid", "lost kid", "target", "done", "chain"):
            row = await store.find_run(f"{name}-{role}")
            if row is None or not row.tasks or row.inbox_last > row.inbox_read:
                return False
            if row.claim is not None:
                return False
            if role == "chain" and row.status == "continued_as_new":
                return False
            if role == "done" and row.is_open:
                return False
            if role == "mother" and len((await store.pending(row.run_id)).timers) > 1:
                return False
    return True
