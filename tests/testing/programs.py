"""Workflows that the tests of the kit run."""

import asyncio
import os
from dataclasses import dataclass
from datetime import timedelta

import derecho
from derecho import Context, RetryPolicy, Signal


@dataclass(frozen=True)
class Order:
    id: str
    cents: int


@dataclass(frozen=True)
class Receipt:
    charge: str
    parcels: list[str]


class CardDeclined(Exception):
    pass


approved = Signal("approved", str)


@derecho.activity(retry=RetryPolicy(initial_interval=10, jitter=0, give_up_on=(CardDeclined,)), start_to_close=60)
async def charge(order: str, cents: int = 100) -> str:
    return f"really {order} {cents}"


@derecho.activity
def weigh(parcel: str) -> int:
    return len(parcel)


@derecho.activity
async def refund(charge: str) -> None:
    raise AssertionError("the real refund")


@derecho.workflow
async def pack(ctx: Context, parcel: str) -> str:
    await ctx.sleep(3600)
    return f"{parcel}:{await weigh.execute(ctx, parcel)}"


@derecho.workflow
async def order_workflow(ctx: Context, order: Order) -> Receipt:
    """Waits for an approval, at most three days; charges; packs; refunds when packing fails."""
    name = await asyncio.wait_for(ctx.signals(approved).receive(), timedelta(days=3).total_seconds())
    async with ctx.saga() as saga:
        charged = await charge.execute(ctx, order.id, cents=order.cents)
        saga.compensate(refund.bind(charged))
        parcels = await ctx.map([pack.bind(f"{name}-{n}") for n in range(2)])
    return Receipt(charged, parcels)


@derecho.workflow
async def yearly(ctx: Context, years: int) -> list[str]:
    seen = []
    for _ in range(years):
        await ctx.sleep(timedelta(days=365))
        seen.append(ctx.now().date().isoformat())
    return seen


@derecho.workflow
async def pay(ctx: Context, order: str) -> str:
    return await charge.execute(ctx, order)


@derecho.workflow
async def waiter(ctx: Context) -> str:
    return await ctx.signals(approved).receive()


@derecho.workflow
async def slip(ctx: Context) -> None:
    raise NameError("a slip of the code")


@derecho.workflow
async def flaky_step(ctx: Context) -> int:
    tries = 0

    async def again() -> int:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OSError("not yet")
        return tries

    return await ctx.step("again", again, retry=RetryPolicy(initial_interval=1, jitter=0))


@derecho.workflow
async def lottery(ctx: Context) -> list[str]:
    return [str(ctx.uuid4()), str(ctx.random.random())]


@derecho.workflow
async def journey(ctx: Context, n: int) -> list[str]:
    """Activities one by one and together, a timer, a step, a signal, a child: whatever a commit can hold."""
    seen = [await charge.execute(ctx, "a")]
    seen += await asyncio.gather(*(charge.execute(ctx, f"b{i}") for i in range(n)))
    await ctx.sleep(30)

    async def local(text: str) -> str:
        return text + "!"

    seen.append(await ctx.step("local", local, "step"))
    seen.append(await ctx.signals(approved).receive())
    seen.append(await ctx.child(pack.bind("parcel")))
    return seen


@derecho.workflow
async def counting(ctx: Context) -> int:
    """What it gives depends on how often its activity ran: no fault may go unnoticed."""
    return await weigh.execute(ctx, "x")


@derecho.activity(run_in="process")
def in_a_process(text: str) -> list[int]:
    derecho.heartbeat(1)
    if text == "bad":
        raise ValueError("of the child")
    return [len(text), os.getpid()]


@derecho.workflow
async def elsewhere(ctx: Context, text: str) -> list[int]:
    return await in_a_process.execute(ctx, text)


@derecho.activity
async def ask(token: str) -> None:
    raise NotImplementedError


@derecho.workflow
async def asks(ctx: Context, times: int) -> str:
    """Asks somebody again and again, each time as a new run."""
    answer = ctx.callback(str)
    await ask.execute(ctx, answer.token)
    said = await answer.future
    if times > 1:
        raise ctx.continue_as_new(asks.bind(times - 1))
    return said


@derecho.workflow
async def again(ctx: Context, rounds: int) -> int:
    """A chain of runs."""
    if rounds > 0:
        await ctx.sleep(60)
        raise ctx.continue_as_new(again.bind(rounds - 1))
    return await weigh.execute(ctx, "tea")
