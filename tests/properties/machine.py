"""The workflow that runs a random program: each operation is real code with real fibers.

The log in its result names the operations in the order in which they ended.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Protocol

from derecho import ActivityCancelled, Context, RetryPolicy, Selector, Signal, activity, current_activity, workflow
from derecho.errors import ActivityFailed, WorkflowError
from tests.properties.programs import Node, seconds

number = Signal("number", int)
at_once = RetryPolicy(initial_interval=0.0, jitter=0.0)


class Boom(Exception):
    """What operations raise on purpose."""


class World(Protocol):
    """What happens outside of workflows, and when."""

    async def gate(self, kind: str, key: str, at: float) -> None:
        """Return at an instant of the virtual clock."""

    def ended(self, run_id: str, node: Node) -> None:
        """An operation has come to its end."""


class Outside:
    world: World


@activity("work", retry=RetryPolicy(initial_interval=0.0, jitter=0.0, give_up_on=(Boom,)))
async def work(spec: list[int]) -> str:
    """Takes the time of its number; fails for good, or in its first attempts."""
    name, fails, flaky = spec
    here = current_activity()
    if here.attempt <= flaky:
        raise OSError(f"attempt {here.attempt}")
    at = here.scheduled_at.timestamp() + seconds(name)
    await Outside.world.gate("activity", here.idempotency_key, at)
    if fails:
        raise Boom(f"activity {name}")
    return f"a{name}"


class Machine:
    """One run of a program."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.log: list[int] = []

    async def run(self, node: Node) -> Any:
        handler: Callable[[Node], Awaitable[Any]] = getattr(self, node["op"])
        value = await handler(node)
        self.log.append(node["id"])
        Outside.world.ended(self.ctx.info.run_id, node)
        return value

    def fibers(self, node: Node) -> list[asyncio.Future[Any]]:
        async def fiber(ctx: Context, part: Node) -> Any:
            return await self.run(part)

        return [self.ctx.go(fiber, part) for part in node["parts"]]

    # --- what is there at once

    async def effect(self, node: Node) -> Any:
        self.ctx.side_effect(lambda: random.random(), type=float)
        return "effect"

    async def random(self, node: Node) -> Any:
        return self.ctx.random.randint(0, 10**9)

    async def uuid(self, node: Node) -> Any:
        return str(self.ctx.uuid4())

    async def now(self, node: Node) -> Any:
        return self.ctx.now().isoformat()

    async def patched(self, node: Node) -> Any:
        return self.ctx.patched(f"change-{node['id'] % 3}")

    # `yield` is a keyword: see below the class

    async def trysignal(self, node: Node) -> Any:
        return self.ctx.signals(number).try_receive()

    # --- what takes time

    async def act(self, node: Node) -> Any:
        return await self.ctx.execute(work.bind([node["id"], int(node["fails"]), 0]))

    async def flaky(self, node: Node) -> Any:
        return await work.execute(self.ctx, [node["id"], 0, node["size"]])

    async def step(self, node: Node) -> Any:
        at = self.ctx.now().timestamp() + seconds(node["id"])
        key = f"{self.ctx.info.run_id}/{node['id']}/{self.ctx.uuid4()}"

        async def small() -> str:
            await Outside.world.gate("step", key, at)
            if node["fails"]:
                raise Boom(f"step {node['id']}")
            return f"s{node['id']}"

        return await self.ctx.step(f"step-{node['id']}", small)

    async def sleep(self, node: Node) -> Any:
        ctx, span = self.ctx, seconds(node["id"])
        match node.get("size", 0):
            case 0:
                await ctx.sleep(span)
            case 1:
                await asyncio.sleep(span)
            case 2:
                await ctx.sleep_until(ctx.now() + timedelta(seconds=span))
            case _:
                await asyncio.wait([ctx.new_timer(span)])

    async def signal(self, node: Node) -> Any:
        try:
            async with asyncio.timeout(seconds(node["id"])):
                return await self.ctx.signals(number).receive()
        except TimeoutError:
            return "silence"

    # --- several parts

    async def seq(self, node: Node) -> Any:
        return [await self.run(part) for part in node["parts"]]

    async def gather(self, node: Node) -> Any:
        return await asyncio.gather(*(self.run(part) for part in node["parts"]))

    async def settle(self, node: Node) -> Any:
        results = await asyncio.gather(*(self.run(part) for part in node["parts"]), return_exceptions=True)
        return [plain(result) for result in results]

    async def wait(self, node: Node) -> Any:
        fibers = self.fibers(node)
        when = asyncio.FIRST_COMPLETED if node["flag"] else asyncio.FIRST_EXCEPTION
        done, pending = await asyncio.wait(fibers, return_when=when)
        for fiber in pending:
            fiber.cancel()
        rest = await asyncio.gather(*pending, return_exceptions=True)
        return [[plain(fiber.exception() or fiber.result()) for fiber in done], [plain(item) for item in rest]]

    async def completed(self, node: Node) -> Any:
        results = []
        for each in asyncio.as_completed(self.fibers(node)):
            try:
                results.append(await each)
            except Boom as exc:
                results.append(plain(exc))
        return results

    async def group(self, node: Node) -> Any:
        caught: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.run(part)) for part in node["parts"]]
            return [task.result() for task in tasks]
        except* Boom as errors:
            caught = sorted(str(plain(exc)) for exc in errors.exceptions)
        return caught

    async def select(self, node: Node) -> Any:
        selector: Selector[Any] = Selector()
        fibers = self.fibers(node)
        for fiber in fibers:
            selector.add(fiber, lambda value: ["fiber", value])
        selector.add(self.ctx.new_timer(seconds(node["id"])), lambda at: ["timer"])
        selector.add(self.ctx.signals(number).receive_future(), lambda n: ["signal", n])
        seen = []
        try:
            for _ in range(len(fibers)):
                seen.append(await selector.select(self.ctx))
        finally:
            for fiber in fibers:
                fiber.cancel()
        await asyncio.gather(*fibers, return_exceptions=True)
        return seen

    async def semaphore(self, node: Node) -> Any:
        semaphore = asyncio.Semaphore(2 if node["flag"] else 1)

        async def one(part: Node) -> Any:
            async with semaphore:
                return await self.run(part)

        return await asyncio.gather(*(one(part) for part in node["parts"]))

    async def lock(self, node: Node) -> Any:
        lock, order = asyncio.Lock(), []

        async def one(part: Node) -> None:
            async with lock:
                await self.run(part)
                order.append(part["id"])

        await asyncio.gather(*(one(part) for part in node["parts"]), return_exceptions=True)
        return order

    async def barrier(self, node: Node) -> Any:
        event = asyncio.Event()

        async def one(part: Node) -> Any:
            await event.wait()
            return await self.run(part)

        fibers = [asyncio.ensure_future(one(part)) for part in node["parts"]]
        await self.ctx.sleep(seconds(node["id"]))
        event.set()
        return await asyncio.gather(*fibers)

    async def saga(self, node: Node) -> Any:
        try:
            async with self.ctx.saga() as saga:
                for index, part in enumerate(node["parts"]):
                    await self.run(part)
                    saga.compensate(work.bind([1000 * node["id"] + index, 0, 0]))
                if node["flag"]:
                    raise Boom("saga")
        except Boom as exc:
            return plain(exc)
        return "kept"

    # --- one body

    async def timeout(self, node: Node) -> Any:
        try:
            async with asyncio.timeout(seconds(node["id"])):
                return await self.run(node["body"])
        except TimeoutError:
            return "too late"

    async def waitfor(self, node: Node) -> Any:
        done: list[Any] = []

        async def fiber(ctx: Context) -> None:
            done.append(await self.run(node["body"]))

        future = self.ctx.go(fiber)
        came = await self.ctx.wait_for(lambda: bool(done) or future.done(), timeout=seconds(node["id"]))
        future.cancel()
        await asyncio.gather(future, return_exceptions=True)
        return [came, done]

    async def cancel(self, node: Node) -> Any:
        fiber = asyncio.ensure_future(self.run(node["body"]))
        await self.ctx.sleep(seconds(node["id"]))
        fiber.cancel()
        results = await asyncio.gather(fiber, return_exceptions=True)
        return plain(results[0])

    async def go(self, node: Node) -> Any:
        """A fiber that nobody waits for; it may outlive the run."""

        async def fiber(ctx: Context) -> None:
            try:
                await self.run(node["body"])
            except Boom:
                self.log.append(-node["id"])

        self.ctx.go(fiber)

    async def shield(self, node: Node) -> Any:
        async with self.ctx.shield(seconds(node["id"]) if node["mode"] == 0 else None):
            return await self.run(node["body"])

    async def catch(self, node: Node) -> Any:
        try:
            return await self.run(node["body"])
        except Boom as exc:
            return plain(exc)

    async def child(self, node: Node, wait: bool = False, cancel: bool = False) -> Any:
        policies: list[Any] = ["terminate", "cancel", "abandon"]
        program = {"runs": [{"op": "seq", "id": -node["id"], "flag": False, "parts": [node["body"]]}], "outside": []}
        child = self.ctx.child(
            run_program.bind(program, 1),
            id=f"child-{node['id']}-{self.ctx.uuid4()}",
            close_policy=policies[node["mode"]],
            on_cancel="wait" if wait else "request",
        )
        if cancel:
            await self.ctx.sleep(seconds(node["id"]))
            child.cancel()
        elif node["mode"] == 1:
            await child.signal(number, node["id"])
        results = await asyncio.gather(child, return_exceptions=True)
        return plain(results[0])

    async def childcancel(self, node: Node) -> Any:
        return await self.child(node, cancel=True)

    async def childwait(self, node: Node) -> Any:
        return await self.child(node, wait=True, cancel=True)

    # --- several of one kind

    async def channel(self, node: Node) -> Any:
        channel = self.ctx.channel(int, capacity=node["size"])

        async def produce(ctx: Context) -> None:
            for index in range(node["count"]):
                if index % 2:
                    await ctx.sleep(seconds(node["id"], index))
                await channel.send(index)
            channel.close()

        producer = self.ctx.go(produce)
        try:
            return [value async for value in channel]
        finally:
            producer.cancel()

    async def queue(self, node: Node) -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue(node["size"])
        taken: list[list[int]] = []

        async def consume(name: int) -> None:
            while True:
                value = await queue.get()
                await self.ctx.sleep(seconds(node["id"], value))
                taken.append([name, value])
                queue.task_done()

        workers = [asyncio.ensure_future(consume(name)) for name in range(2)]
        try:
            for value in range(node["count"]):
                await queue.put(value)
            await queue.join()
        finally:
            for worker in workers:
                worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        return taken

    async def map(self, node: Node) -> Any:
        base, last = 1000 * node["id"], node["count"] - 1
        calls = [work.bind([base + n, int(node["fails"] and n == last), 0]) for n in range(node["count"])]
        return await self.ctx.map(calls, limit=node["size"] or None)

    async def mapchildren(self, node: Node) -> Any:
        parts = [{"op": "sleep", "id": 1000 * node["id"] + n} for n in range(node["count"])]
        runs = [{"op": "seq", "id": -part["id"], "flag": False, "parts": [part]} for part in parts]
        calls = [run_program.bind({"runs": [run], "outside": []}, 1) for run in runs]
        return len(await self.ctx.map(calls, limit=node["size"] or None))


async def _yield(self: Machine, node: Node) -> None:
    await asyncio.sleep(0)


async def _finally(self: Machine, node: Node) -> Any:
    try:
        return await self.run(node["body"])
    finally:
        await self.run(node["other"])


async def _raise(self: Machine, node: Node) -> Any:
    raise Boom(f"raised {node['id']}")


for _name, _handler in (("yield", _yield), ("finally", _finally), ("raise", _raise)):
    setattr(Machine, _name, _handler)  # these operations are named as Python names them


def plain(result: Any) -> Any:
    """An outcome as JSON."""
    if isinstance(result, Boom):
        return f"boom {result}"
    if isinstance(result, ExceptionGroup):
        return sorted(str(plain(inner)) for inner in result.exceptions)
    if isinstance(result, (WorkflowError, ActivityFailed, ActivityCancelled, asyncio.CancelledError)):
        return type(result).__name__
    if isinstance(result, BaseException):
        raise result
    return result


@workflow("program")
async def run_program(ctx: Context, program: Any, part: int) -> Any:
    """Run one part of a program, and go on as the next."""
    machine = Machine(ctx)
    value = await machine.run(program["runs"][part - 1])
    if part < len(program["runs"]):
        raise ctx.continue_as_new(run_program.bind(program, part + 1))
    return {"value": value, "log": machine.log}
