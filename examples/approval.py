"""Signals: wait for a person, but not for ever. The first of signal and timer wins; the other takes nothing."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta

import derecho
from derecho import Context, Engine, Selector, Signal


@dataclass(frozen=True)
class Approval:
    by: str
    ok: bool


approvals = Signal("approval", Approval)


@derecho.workflow
async def request(ctx: Context, what: str, patience: float) -> str:
    return await (
        Selector[str]()
        .add(ctx.signals(approvals).receive_future(), lambda a: f"{what}: {'yes' if a.ok else 'no'}, says {a.by}")
        .add(ctx.new_timer(timedelta(seconds=patience)), lambda _: f"{what}: nobody answered")
        .select(ctx)
    )


@derecho.workflow
async def committee(ctx: Context, members: int) -> list[str]:
    """Signals come in the order in which they were acknowledged; each goes to one receiver."""
    votes: list[str] = []
    async for vote in ctx.signals(approvals):
        votes.append(f"{vote.by} {'for' if vote.ok else 'against'}")
        if len(votes) == members:
            return votes
    raise AssertionError("a signal channel has no end")


async def main(store: str = "memory:") -> None:
    async with Engine(store, workflows=[request, committee]) as engine:
        client = engine.client
        asked = await client.start(request.bind("holiday", 60), id="holiday")
        await asked.signal(approvals, Approval("ann", ok=True), key="ann's answer")
        await asked.signal(approvals, Approval("ann", ok=True), key="ann's answer")  # sent twice, received once
        print(await asked.result())
        print(await client.run(request.bind("yacht", 0.05)))

        # Start and first signals in one commit.
        ballot = await client.start(committee.bind(2), signals=[(approvals, Approval("bob", ok=False))])
        await ballot.signal(approvals, Approval("cid", ok=True))
        print(", ".join(await ballot.result()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
