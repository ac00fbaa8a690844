"""Messages: numbered in one order, kept until read, once per key, never lost between a look and a sleep."""

import pytest

from derecho.journal.changes import BlockRun, Conflict, CreateRun, Deliver, Receipt, ReleaseRun, RequestTerminate
from derecho.journal.model import CLAIMED, Message
from derecho.testing.conformance.kit import MINUTE, WORKER, World, advance, everything, head_after, message, run_row


@pytest.mark.asyncio
class TestDeliver:
    async def test_messages_are_numbered_and_kept_in_order(self, world: World) -> None:
        await world.start(1, message("start"))
        for number, text in enumerate(("a", "b", "c"), start=2):
            assert await world.do(Deliver(message(text), run_id="run-1")) == Receipt((("run-1", number, False),))
        assert (await world.store.pending("run-1")).messages == [
            Message(number, message(text).data) for number, text in enumerate(("start", "a", "b", "c"), start=1)
        ]

    async def test_several_in_one_transition_are_told_one_by_one(self, world: World) -> None:
        await world.sleeping(1)
        await world.sleeping(2)
        receipt = await world.do(
            Deliver(message("a"), run_id="run-2"),
            Deliver(message("b"), workflow_id="order-1"),
            Deliver(message("c"), run_id="nothing", drop=True),
            Deliver(message("d"), run_id="run-2"),
        )
        expected = (("run-2", 2, False), ("run-1", 2, False), ("nothing", 0, False), ("run-2", 3, False))
        assert receipt.delivered == expected

    async def test_a_sleeping_run_is_ready_at_once(self, world: World) -> None:
        await world.sleeping()
        world.clock.advance(MINUTE)
        await world.do(Deliver(message(), run_id="run-1"))
        row = await world.run()
        assert (row.ready_at, row.inbox_last, row.inbox_read) == (world.now, 2, 1)

    async def test_a_run_that_is_ready_already_keeps_its_place(self, world: World) -> None:
        row = await world.start()
        world.clock.advance(MINUTE)
        await world.do(Deliver(message(), run_id="run-1"))
        assert (await world.run()).ready_at == row.ready_at

    async def test_a_run_that_is_to_start_later_starts_now(self, world: World) -> None:
        await world.start(ready_at=world.now + MINUTE)
        await world.do(Deliver(message(), run_id="run-1"))
        assert (await world.run()).ready_at == world.now

    async def test_a_blocked_run_is_tried_again_at_once(self, world: World) -> None:
        run = await world.sleeping()
        await world.do(BlockRun("run-1", run.head, None, "why", world.now + MINUTE))
        await world.do(Deliver(message(), run_id="run-1"))
        row = await world.run()
        assert (row.status, row.ready_at) == ("blocked", world.now)

    async def test_a_run_that_is_held_stays_held_and_is_ready_after(self, world: World) -> None:
        run = await world.claimed()
        await world.do(Deliver(message("late"), run_id="run-1"))
        row = await world.run()
        assert (row.claim, row.ready_at, row.inbox_last) == (run.claim, CLAIMED, 3)
        await world.do(advance(seen=run.head, claim=run.claim, consume_to=2))
        assert (await world.run()).ready_at == world.now
        assert await world.inbox() == [message("late").data]

    async def test_a_message_that_comes_while_a_run_is_given_back_wakes_it(self, world: World) -> None:
        run = await world.claimed()
        kept = advance(seen=run.head, claim=run.claim, keep_claim=True, consume_to=2)
        await world.do(kept)
        await world.store.commit(
            [
                (Deliver(message("late"), run_id="run-1"),),
                (ReleaseRun("run-1", run.claim or "", ready=False),),
            ]
        )
        assert (await world.run()).ready_at == world.now

    async def test_an_unknown_run_conflicts(self, world: World) -> None:
        assert await world.refused(Deliver(message(), run_id="run-1")) == Conflict("not_found")
        assert await world.refused(Deliver(message(), workflow_id="order-1")) == Conflict("not_found")
        assert await world.refused(Deliver(message())) == Conflict("not_found")

    async def test_a_closed_run_conflicts_and_says_how_it_ended(self, world: World) -> None:
        await world.closed(1, "failed")
        assert await world.refused(Deliver(message(), run_id="run-1")) == Conflict("closed", "failed")
        assert await world.refused(Deliver(message(), workflow_id="order-1")) == Conflict("closed", "failed")

    async def test_a_workflow_id_means_its_open_run(self, world: World) -> None:
        await world.closed(1)
        await world.start(2, workflow_id="order-1")
        receipt = await world.do(Deliver(message(), workflow_id="order-1"))
        assert receipt.delivered == (("run-2", 2, False),)

    async def test_a_chain_means_its_open_run_and_no_stranger_of_the_same_id(self, world: World) -> None:
        await world.closed(1, "continued_as_new")
        await world.start(2, workflow_id="order-1", chain_id="chain-1")
        receipt = await world.do(Deliver(message(), workflow_id="order-1", chain_id="chain-1"))
        assert receipt.delivered == (("run-2", 2, False),)
        stranger = Deliver(message(), workflow_id="order-1", chain_id="chain-9")
        assert await world.refused(stranger) == Conflict("not_found")
        assert len(await world.inbox("run-2")) == 2

    async def test_a_request_to_terminate_follows_a_run_that_continued_as_new(self, world: World) -> None:
        await world.closed(1, "continued_as_new")
        await world.sleeping(2, workflow_id="order-1", chain_id="chain-1")
        await world.do(RequestTerminate("run-1", "why"))
        assert (await world.run("run-2")).terminate == "why"

    async def test_a_request_to_terminate_leaves_a_stranger_of_the_same_id_alone(self, world: World) -> None:
        await world.closed(1, "continued_as_new")
        await world.closed(2, workflow_id="order-1", chain_id="chain-1")
        stranger = await world.sleeping(3, workflow_id="order-1")
        await world.do(RequestTerminate("run-1", "why"))
        await world.do(RequestTerminate("run-2", "why"))
        assert await world.run("run-3") == stranger

    async def test_a_workflow_id_with_a_chain_means_a_run_of_that_chain(self, world: World) -> None:
        await world.start(1)
        mine = Deliver(message(), workflow_id="order-1", chain_id="chain-1")
        assert (await world.do(mine)).delivered == (("run-1", 2, False),)
        await world.do(advance(status="completed"))
        assert await world.refused(mine) == Conflict("closed", "completed")
        await world.start(2, workflow_id="order-1", chain_id="chain-2")
        assert await world.refused(mine) == Conflict("not_found")
        stranger = Deliver(message(), run_id="run-2", chain_id="chain-1", drop=True)
        assert [number for _, number, _ in (await world.do(stranger)).delivered] == [0]
        assert len(await world.inbox("run-2")) == 1

    async def test_a_full_inbox_conflicts_until_it_is_read(self, world: World) -> None:
        await world.start(1, message("one"), message("two"))
        deliver = Deliver(message("three"), run_id="run-1", limit=2)
        before = await everything(world.store)
        assert await world.refused(deliver) == Conflict("full")
        assert await everything(world.store) == before
        await world.do(advance(consume_to=1))
        assert (await world.do(deliver)).delivered == (("run-1", 3, False),)

    @pytest.mark.parametrize("target", ["nothing", "closed", "full"])
    async def test_what_may_be_dropped_is_dropped(self, world: World, target: str) -> None:
        if target == "closed":
            await world.closed()
        elif target == "full":
            await world.start()
        receipt = await world.do(Deliver(message(), run_id="run-1", limit=1, drop=True))
        assert receipt.delivered == (("run-1", 0, False),)

    async def test_a_dropped_message_for_an_unknown_workflow_has_no_run(self, world: World) -> None:
        receipt = await world.do(Deliver(message(), workflow_id="order-1", drop=True))
        assert receipt.delivered == (("", 0, False),)


@pytest.mark.asyncio
class TestKeys:
    async def test_a_key_enters_once(self, world: World) -> None:
        await world.sleeping()
        deliver = Deliver(message("a", "key"), run_id="run-1")
        assert (await world.do(deliver)).delivered == (("run-1", 2, False),)
        assert (await world.do(deliver)).delivered == (("run-1", 0, False),)
        assert await world.inbox() == [message("a").data]

    async def test_a_key_enters_once_in_one_transition(self, world: World) -> None:
        await world.sleeping()
        receipt = await world.do(*(Deliver(message("a", "key"), run_id="run-1") for _ in range(2)))
        assert receipt.delivered == (("run-1", 2, False), ("run-1", 0, False))

    async def test_a_key_is_remembered_when_the_message_was_read(self, world: World) -> None:
        run = await world.sleeping()
        deliver = Deliver(message("a", "key"), run_id="run-1")
        await world.do(deliver)
        await world.do(advance(seen=run.head, consume_to=2))
        assert (await world.do(deliver)).delivered == (("run-1", 0, False),)

    async def test_a_key_that_was_delivered_is_known_even_when_the_inbox_is_full(self, world: World) -> None:
        await world.start(1, message("a", "key"))
        receipt = await world.do(Deliver(message("a", "key"), run_id="run-1", limit=1))
        assert receipt.delivered == (("run-1", 0, False),)

    async def test_other_runs_and_other_keys_are_other_messages(self, world: World) -> None:
        await world.sleeping(1)
        await world.sleeping(2)
        for run_id, key, number in (("run-1", "a", 2), ("run-2", "a", 2), ("run-1", "b", 3)):
            receipt = await world.do(Deliver(message("x", key), run_id=run_id))
            assert receipt.delivered == ((run_id, number, False),)

    async def test_a_refused_transition_leaves_its_keys_free(self, world: World) -> None:
        await world.sleeping()
        await world.refused(Deliver(message("a", "key"), run_id="run-1"), Deliver(message("b"), run_id="nothing"))
        assert (await world.do(Deliver(message("a", "key"), run_id="run-1"))).delivered == (("run-1", 2, False),)

    async def test_a_chain_that_goes_on_remembers_its_keys(self, world: World) -> None:
        run = await world.start(1, message("a", "start-key"))
        await world.do(Deliver(message("b", "key"), run_id="run-1"))
        await world.do(
            advance(seen=run.head, status="continued_as_new", continues=True),
            CreateRun(run_row(2, workflow_id="order-1", chain_id="chain-1"), (message("go on"),)),
        )
        for key in ("key", "start-key"):
            receipt = await world.do(Deliver(message("b", key), workflow_id="order-1"))
            assert receipt.delivered == (("run-2", 0, False),)

    async def test_a_signal_to_a_run_that_has_gone_on_is_known_to_have_arrived(self, world: World) -> None:
        run = await world.sleeping()
        signal = Deliver(message("b", "key"), run_id="run-1")
        await world.do(signal)
        await world.do(
            advance(seen=run.head, status="continued_as_new", continues=True),
            CreateRun(run_row(2, workflow_id="order-1", chain_id="chain-1"), (message("go on"),)),
        )
        assert (await world.do(signal)).delivered == (("run-1", 0, False),)

    async def test_messages_that_go_on_with_a_chain_enter_whatever_their_keys(self, world: World) -> None:
        await world.start(1, message("a", "key"))
        following = run_row(2, workflow_id="order-1", chain_id="chain-1")
        await world.do(
            advance(status="continued_as_new", continues=True),
            CreateRun(following, (message("go on"), message("a", "key"))),
        )
        assert len(await world.inbox("run-2")) == 2

    async def test_a_chain_that_has_ended_forgets_its_keys(self, world: World) -> None:
        await world.start(1, message("a", "key"))
        await world.do(advance(status="completed"))
        await world.sleeping(2, workflow_id="order-1", chain_id="chain-1")
        receipt = await world.do(Deliver(message("a", "key"), run_id="run-2"))
        assert receipt.delivered == (("run-2", 2, False),)


@pytest.mark.asyncio
class TestReplies:
    def signal(self, **fields: object) -> Deliver:
        return Deliver(
            message("signal"),
            reply_to="run-1",
            delivered=message("delivered"),
            undelivered=message("undelivered"),
            **fields,  # type: ignore[arg-type]  # whichever field the test is about
        )

    async def test_the_sender_hears_that_a_message_arrived(self, world: World) -> None:
        await world.sleeping(1)
        await world.sleeping(2)
        receipt = await world.do(self.signal(run_id="run-2"))
        assert receipt.delivered == (("run-2", 2, False),)
        assert await world.inbox("run-1") == [message("delivered").data]
        assert (await world.run("run-1")).ready_at == world.now

    @pytest.mark.parametrize("target", ["nothing", "closed", "full"])
    async def test_the_sender_hears_that_a_message_did_not_arrive(self, world: World, target: str) -> None:
        await world.sleeping(1)
        if target == "closed":
            await world.closed(2)
        elif target == "full":
            await world.start(2)
        receipt = await world.do(self.signal(run_id="run-2", limit=1))
        assert receipt.delivered == (("run-2", 0, False),)
        assert await world.inbox("run-1") == [message("undelivered").data]

    async def test_the_sender_hears_that_a_message_had_arrived_before(self, world: World) -> None:
        await world.sleeping(1)
        await world.start(2, message("signal", "key"))
        await world.do(
            Deliver(message("signal", "key"), run_id="run-2", reply_to="run-1", delivered=message("delivered"))
        )
        assert await world.inbox("run-1") == [message("delivered").data]

    async def test_a_sender_that_has_closed_need_not_know(self, world: World) -> None:
        await world.closed(1)
        await world.sleeping(2)
        await world.do(self.signal(run_id="run-2"))
        await world.do(self.signal(run_id="nothing"))
        assert await world.inbox("run-2") == [message("signal").data]


@pytest.mark.asyncio
class TestDeliverAndClaim:
    def deliver(self, worker: str = WORKER) -> Deliver:
        return Deliver(message("work"), run_id="run-1", claim="mine", worker=worker)

    async def test_an_engine_that_delivers_to_a_sleeping_run_takes_it(self, world: World) -> None:
        await world.register()
        run = await world.sleeping()
        assert (await world.do(self.deliver())).delivered == (("run-1", 2, True),)
        row = await world.run()
        assert (row.claim, row.worker, row.ready_at) == ("mine", WORKER, CLAIMED)
        assert await world.claim() == []
        await world.do(advance(seen=run.head, claim="mine", consume_to=2))

    async def test_a_run_that_is_ready_is_left_to_the_queue(self, world: World) -> None:
        await world.register()
        await world.start()
        assert (await world.do(self.deliver())).delivered == (("run-1", 2, False),)
        assert (await world.run()).claim is None

    async def test_a_run_that_is_held_is_left_to_its_holder(self, world: World) -> None:
        run = await world.claimed()
        assert (await world.do(self.deliver())).delivered == (("run-1", 3, False),)
        assert (await world.run()).claim == run.claim

    async def test_a_blocked_run_is_not_taken(self, world: World) -> None:
        await world.register()
        run = await world.sleeping()
        await world.do(BlockRun("run-1", run.head, None, "why", world.now + MINUTE))
        assert (await world.do(self.deliver())).delivered == (("run-1", 2, False),)
        row = await world.run()
        assert (row.claim, row.ready_at) == (None, world.now)

    async def test_a_dead_engine_takes_nothing(self, world: World) -> None:
        await world.sleeping()
        assert (await world.do(self.deliver("nobody"))).delivered == (("run-1", 2, False),)
        row = await world.run()
        assert (row.claim, row.ready_at) == (None, world.now)

    async def test_of_two_deliveries_in_one_batch_the_first_takes_the_run(self, world: World) -> None:
        await world.register()
        run = await world.sleeping()
        results = await world.store.commit([(self.deliver(),), (self.deliver(),)])
        assert results == [Receipt((("run-1", 2, True),)), Receipt((("run-1", 3, False),))]
        task = advance(seen=run.head, claim="mine", consume_to=2)
        await world.do(task)
        assert (await world.run()).ready_at == world.now
        assert (await world.run()).head == head_after(task)
