"""An order, from the shelf to the parcel: straight-line code that takes back what it did when the shop says no."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal

import derecho
from shop.client import Rejected, Shop


@dataclass(frozen=True)
class Order:
    id: str
    items: dict[str, int]  # pieces by article
    total: Decimal
    currency: str
    card: str
    country: str
    express: bool = False


@dataclass(frozen=True)
class Outcome:
    status: Literal["shipped", "rejected"]
    detail: str


LARGE = 1000
approval = derecho.Signal("approval", bool)
patiently = derecho.RetryPolicy(initial_interval=0.1, max_interval=1, give_up_on=(Rejected,))


@derecho.activity("reserve", start_to_close=5, retry=patiently)
async def reserve(order: Order) -> str:
    return await call_shop("reserve", order=order.id, items=order.items)


@derecho.activity("charge", start_to_close=5, retry=patiently)
async def charge(order: Order) -> str:
    return await call_shop("charge", order=order.id, card=order.card, amount=order.total, currency=order.currency)


@derecho.activity("ship", start_to_close=5, retry=patiently)
async def ship(order: Order, reservation: str) -> str:
    return await call_shop("ship", order=order.id, country=order.country, reservation=reservation)


@derecho.activity("release", start_to_close=5, retry=patiently)
async def release(reservation: str) -> str:
    return await call_shop("release", reservation=reservation)


@derecho.activity("refund", start_to_close=5, retry=patiently)
async def refund(payment: str) -> str:
    return await call_shop("refund", payment=payment)


async def call_shop(operation: str, **body: Any) -> str:
    act = derecho.current_activity()  # its key is the same for every attempt
    return await act.resource(Shop).call(operation, act.idempotency_key, **body)


@derecho.workflow("order")
async def order_workflow(ctx: derecho.Context, order: Order) -> Outcome:
    undo: list[derecho.Invocation[str]] = []
    try:
        reservation = await reserve.execute(ctx, order)
        undo.append(release.bind(reservation))
        payment = await charge.execute(ctx, order)
        undo.append(refund.bind(payment))
        await ctx.sleep(timedelta(seconds=0.3 if order.express else 0.9), summary="packing")
        if order.total >= LARGE and not await ctx.signals(approval).receive():
            raise Rejected("not approved")
        return Outcome("shipped", await ship.execute(ctx, order, reservation))
    except Rejected as reason:
        for compensation in reversed(undo):
            await ctx.execute(compensation)
        return Outcome("rejected", str(reason))
