"""Fourteen workflows, one of each kind that people build: what the proofs of replay and of crashes run.

The histories in `tests/histories` were recorded with this code, so it changes as code in production does: a call that
is added, removed or moved is guarded by `ctx.patched`.
"""

import asyncio
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import derecho
from derecho import Channel, Context, Selector, Signal, WorkflowAlreadyRunning, WorkflowDefinition, WorkflowNotFound
from tests.reference.activities import book, charge, import_rows, notify, poll, reserve, ship, square, undo


@dataclass(frozen=True)
class Order:
    items: list[str]
    cents: int
    way: str = ""


@derecho.workflow
async def order(ctx: Context, order: Order) -> list[str]:
    """An order: one thing after the other, chance, and a week of waiting."""
    done = [await reserve.execute(ctx, item, order.way if n == 0 else "") for n, item in enumerate(order.items)]
    done.append(await charge.execute(ctx, order.cents, str(ctx.uuid4())))
    parcel = ctx.side_effect(lambda: uuid.uuid4().hex, type=str)
    await ctx.sleep(timedelta(days=ctx.random.randint(1, 7)))
    for item in dict.fromkeys(order.items):
        ctx.go(_tell, f"{item} is on its way in {len(parcel)}")
    done.append(await ship.execute(ctx, ", ".join(sorted(order.items))))
    return [*done, ctx.now().isoformat()] if order.way == "slow" else done


async def _tell(ctx: Context, text: str) -> None:
    await notify.execute(ctx, text)


@derecho.workflow
async def trip(ctx: Context, broken: int, way: str = "") -> list[str]:
    """A saga: what was booked is undone in reverse when one booking fails."""
    done: list[str] = []
    try:
        async with ctx.saga() as saga:
            for n, what in enumerate(["flight", "hotel", "car", "boat"]):
                call = reserve.bind(what, "broken" if n == broken else way)
                done.append(await ctx.execute(call, schedule_to_close=timedelta(minutes=10)))
                saga.compensate(undo.bind(what, "flaky" if n == 1 else ""))
    except Exception as exc:
        done.append(f"{type(exc).__name__}: {exc}")
    await notify.execute(ctx, f"{len(done)} things happened")
    return done


@derecho.workflow
async def fan_out(ctx: Context, count: int) -> int:
    """Many at once."""
    return sum(await asyncio.gather(*(square.execute(ctx, n) for n in range(count))))


@derecho.workflow
async def poller(ctx: Context, rounds: int, cursor: int = 0, seen: str = "") -> str:
    """A poller that lives for ever, with a fresh history now and then."""
    for _ in range(3):
        if cursor == rounds:
            return seen
        seen += await poll.execute(ctx, cursor, "flaky" if cursor == 4 else "")
        cursor += 1
        await asyncio.sleep(30 * cursor)
    raise ctx.continue_as_new(poller.bind(rounds, cursor, seen))


approvals = Signal("approval", str)


@derecho.workflow
async def approval(ctx: Context, patience: float, voters: int) -> str:
    """People, and a deadline."""
    votes: list[str] = []
    deadline = ctx.new_timer(patience)
    while len(votes) < voters:
        vote = await (
            Selector[str]().add(ctx.signals(approvals).receive_future(), str).add(deadline, lambda _: "").select(ctx)
        )
        if not vote:
            return await undo.execute(ctx, f"{len(votes)} votes")
        votes.append(vote)
    deadline.cancel()
    await notify.execute(ctx, " and ".join(votes))
    return ", ".join(votes)


@derecho.workflow
async def tree(ctx: Context, depth: int, width: int, broken: bool = False) -> int:
    """A run, its children, and theirs."""
    if depth == 0:
        if broken:
            raise ValueError("a leaf fell")
        await ctx.sleep(40)
        return await square.execute(ctx, width)
    branches = [ctx.child(tree.bind(depth - 1, width, broken and n == width - 1)) for n in range(width)]
    ends = await asyncio.gather(*branches, return_exceptions=True)
    await ctx.sleep(depth)
    return sum(1 if isinstance(end, BaseException) else end for end in ends)


readings = Signal("reading", int)


@derecho.workflow
async def aggregator(ctx: Context, want: int, quiet: float) -> list[int]:
    """Gathers signals until there are enough, or none has come for a while."""
    found: list[int] = []

    async def collect(ctx: Context) -> None:
        async for value in ctx.signals(readings):
            found.append(value)

    collector = ctx.go(collect)
    while len(found) < want:
        seen = len(found)
        if not await ctx.wait_for(lambda seen=seen: len(found) > seen, quiet):  # type: ignore[misc]  # no parameter
            break
    collector.cancel()
    await notify.execute(ctx, f"{len(found)} readings")
    return found


@derecho.workflow
async def batch(ctx: Context, count: int, limit: int, broken: int = -1) -> list[str]:
    """A batch, a few at a time, in sets and groups whose order asyncio leaves open."""
    squares = await ctx.map([square.bind(n) for n in range(count)], limit=limit)
    seen = [str(sum(squares))]
    pending: set[asyncio.Future[str]] = {ship.execute(ctx, f"box {n}", "flaky" * (n % 2)) for n in range(limit)}
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        seen.extend(sorted([future.result() for future in done]))
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(limit):
                group.create_task(_one(ctx, n, n == broken))
    except* ValueError as errors:
        seen.append(f"{len(errors.exceptions)} broken")
    return seen


async def _one(ctx: Context, n: int, broken: bool) -> None:
    try:
        await ship.execute(ctx, f"crate {n}")
        if broken:
            raise ValueError(n)
        await ctx.sleep(60)
    finally:
        await undo.execute(ctx, f"crate {n}")


@derecho.workflow
async def tenant(ctx: Context, shielded: bool, months: int) -> str:
    """Cancelled at any moment, it leaves in order."""
    await reserve.execute(ctx, "a flat")
    try:
        for month in range(months):
            if shielded:
                async with ctx.shield(timedelta(days=3)):
                    await charge.execute(ctx, 900, f"month {month}")
                    await ctx.sleep(timedelta(days=1))
            await ctx.sleep(timedelta(days=29))
    finally:
        async with ctx.shield():
            await undo.execute(ctx, "a flat")
            await notify.execute(ctx, "moved out")
    return f"stayed for {months}"


@derecho.workflow
async def importing(ctx: Context, fail_at: list[int], lines: int = 1) -> int:
    """Long work that goes on where it was when it is attempted again."""
    ends = await asyncio.gather(*(import_rows.execute(ctx, fail_at) for _ in range(lines)))
    await notify.execute(ctx, f"{len(ends)} lines are imported")
    return len(ends)


orders, stops = Signal("order", str), Signal("stop", bool)


@derecho.workflow
async def desk(ctx: Context, capacity: int, ticks: int) -> list[str]:
    """A loop over whatever comes first: orders, ticks, the worker's answers, the end."""
    seen: list[str] = []
    answers = ctx.channel(str, capacity)

    async def work(ctx: Context, what: str, answers: Channel[str]) -> None:
        await answers.send(await ship.execute(ctx, what))

    selector: Selector[str] = Selector()
    taking, stopping = ctx.signals(orders), ctx.signals(stops)
    selector.add(taking.receive_future(), lambda what: f"order {what}")
    selector.add(stopping.receive_future(), lambda _: "stop")
    selector.add(ctx.new_timer(90), lambda _: "tick")
    selector.add(answers.receive_future(), lambda answer: f"answer {answer}")
    while True:
        what = await selector.select(ctx)
        seen.append(what)
        if what == "stop" or (what == "tick" and (ticks := ticks - 1) == 0):
            return seen
        if what.startswith("order"):
            ctx.go(work, what, answers)
            selector.add(taking.receive_future(), lambda what: f"order {what}")
        elif what == "tick":
            selector.add(ctx.new_timer(90), lambda _: "tick")
        else:
            selector.add(answers.receive_future(), lambda answer: f"answer {answer}")


async def label(text: str) -> str:
    if text == "3":
        raise ValueError("no label for 3")
    return f"label {text}"


@derecho.workflow
async def changed(ctx: Context, rounds: int, pause: float) -> list[str]:
    """Code with a past: two patches, of which runs meet one, both or none."""
    done: list[str] = []
    for n in range(rounds):
        if ctx.patched("check-first"):
            done.append(await reserve.execute(ctx, f"check {n}"))
        done.append(await charge.execute(ctx, n, f"round {n}"))
        await ctx.sleep(pause)
        if n and ctx.patched("labels"):
            try:
                done.append(await ctx.step("label", label, str(n)))
            except ValueError as exc:
                done.append(str(exc))
    return done


@derecho.workflow("changed")
async def changed_yesterday(ctx: Context, rounds: int, pause: float) -> list[str]:
    """The same before its patches; runs that it began go through today's code."""
    done: list[str] = []
    for n in range(rounds):
        done.append(await charge.execute(ctx, n, f"round {n}"))
        await ctx.sleep(pause)
    return done


async def count_bookings(connection: Any, article: str) -> int:
    await connection.execute("CREATE TABLE IF NOT EXISTS bookings (article TEXT, pieces INTEGER)")
    await connection.execute("INSERT INTO bookings VALUES (?, 1)", (article,))
    [[count]] = await connection.execute("SELECT sum(pieces) FROM bookings WHERE article = ?", (article,))
    return int(count)


@derecho.workflow
async def booking(ctx: Context, article: str, times: int) -> list[int]:
    """Rows of our own, each written once, in the commit that records it."""
    counts: list[int] = []
    for _ in range(times):
        counts.append(await book.execute(ctx, article, 2))
        counts.append(await ctx.transaction(count_bookings, article))
    return counts


@derecho.workflow
async def sender(ctx: Context, to: str, values: list[int]) -> list[str]:
    """Messages from one run to another, once and in order; and to nobody."""
    seen: list[str] = []
    for value in values:
        try:
            await ctx.signal(to, readings, value)
            seen.append(f"sent {value}")
        except WorkflowNotFound:
            seen.append(f"nobody took {value}")
            await ctx.sleep(5)
    return seen


@derecho.workflow
async def outbox(ctx: Context, values: list[int]) -> list[int]:
    """Starts the run that it writes to, and gives what that one has received."""
    reader = ctx.child(aggregator.bind(len(values) + 1, 3600.0), on_cancel="wait")
    await reader.started()
    try:
        await ctx.child(aggregator.bind(1, 1.0), id=reader.id)
    except WorkflowAlreadyRunning:
        values = [*values, len(values)]
    writer = ctx.child(sender.bind(reader.id, values))
    await writer
    return await reader


_ALL: list[WorkflowDefinition] = [
    order, trip, fan_out, poller, approval, tree, aggregator, batch, tenant, importing, desk,
    changed, booking, outbox, sender,
]  # fmt: skip
REFERENCE = {workflow.name: workflow for workflow in _ALL}
