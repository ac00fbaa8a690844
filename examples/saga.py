"""Sagas: when a later part fails, what was done is undone in reverse order; the undoing survives crashes, too."""

import asyncio
import sys

import derecho
from derecho import Context, Engine, NonRetryable

log: list[str] = []


class FullyBooked(Exception):
    """There is no room left."""


@derecho.activity
async def book(what: str) -> str:
    if what == "hotel":
        raise NonRetryable("no room") from FullyBooked("the hotel is full")
    log.append(f"booked {what}")
    return f"{what}-1"


@derecho.activity
async def cancel(booking: str) -> None:
    log.append(f"cancelled {booking}")


@derecho.workflow
async def trip(ctx: Context) -> list[str]:
    async with ctx.saga() as saga:
        bookings = []
        for what in ("flight", "car", "hotel"):
            bookings.append(await book.execute(ctx, what))
            saga.compensate(cancel.bind(bookings[-1]))
        return bookings


async def main(store: str = "memory:") -> None:
    log.clear()
    async with Engine(store, workflows=[trip], activities=[book, cancel]) as engine:
        try:
            await engine.client.run(trip.bind())
        except derecho.WorkflowFailed as error:
            print(error)
    print(", ".join(log))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
