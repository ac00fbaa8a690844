"""What a run does in its worker is found again when the worker dies, also when no claim was held before. (G38)"""

import asyncio

import derecho
from derecho import Context, Engine, Store
from derecho.testing.faults import abandon
from tests.support.clocks import StandingClock
from tests.support.world import eventually


@derecho.activity
async def first() -> int:
    return 1


async def test_a_step_that_begins_after_an_activity_runs_again_elsewhere(store: Store, clock: StandingClock) -> None:
    """The turn that an activity's own result leads to needs no claim, and so its step had none."""
    begun: list[int] = []

    @derecho.workflow
    async def stepping(ctx: Context) -> int:
        async def hang(number: int) -> int:
            begun.append(number)
            if len(begun) == 1:
                await asyncio.sleep(100)
            return number

        await first.execute(ctx)
        return await ctx.step("hang", hang, 3)

    dying = Engine(store, workflows=[stepping], activities=[first], lease=1000)
    await dying.__aenter__()
    await dying.client.start(stepping.bind(), id="s")
    await eventually(lambda: begun)
    await abandon(dying)
    clock.advance(2000)
    async with Engine(store, workflows=[stepping], activities=[first], lease=1000) as heir:
        assert await heir.client.get(stepping, "s").result(timeout=10) == 3
    assert begun == [3, 3]
