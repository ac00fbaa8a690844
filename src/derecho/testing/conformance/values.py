"""Values: what is stored comes back equal; what some database cannot hold is refused by all, and alone."""

import pytest

from derecho.clock import FOREVER
from derecho.journal.changes import Change, Conflict, CreateRun, Deliver, NewMessage, Receipt, ScheduleTimer
from derecho.journal.model import RunFilter, TimerRow
from derecho.testing.conformance.kit import World, activity_row, advance, everything, run_row

KEPT = {
    "empty": "",
    "blank": " \t\n",
    "quotes": "O'Reilly said \"'); DROP TABLE runs; --\"",
    "placeholders": ":run_id ?1 $1 %s {0}",
    "backslashes": "\\ \\u0000 \\x00 \\n",
    "wildcards": "%_*[a-z]",
    "emoji": "\N{FACE WITH TEARS OF JOY}\N{FAMILY}\N{ZERO WIDTH JOINER}\N{EMOJI MODIFIER FITZPATRICK TYPE-6}",
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    "composed": "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "combining": "e\N{COMBINING ACUTE ACCENT}",
    "last character": "\U0010ffff",
    "not a character": "\ufffe\uffff",
    "byte order mark": "\ufeffrun",
    "255 bytes": "r" * 255,
    "255 bytes of two": "\N{LATIN SMALL LETTER SHARP S}" * 127 + "x",
    "digits": "0012",
    "a number": "1e5",
    "null": "null",
    "control": "\x01\x1b\x7f\x85",
}
REFUSED = {"nul": "a\0b", "only nul": "\0", "high half": "\ud800", "low half": "a\udfffb", "swapped": "\udc00\ud800"}

kept = pytest.mark.parametrize("text", KEPT.values(), ids=list(KEPT))
refused = pytest.mark.parametrize("text", REFUSED.values(), ids=list(REFUSED))


@pytest.mark.asyncio
class TestValues:
    @kept
    async def test_ids_and_names_come_back_equal(self, world: World, text: str) -> None:
        await world.register()
        row = run_row(run_id=text, workflow_id=text, workflow_type=text, chain_id=text, queue=text)
        await world.do(CreateRun(row, (NewMessage(text, text),)))
        found = await world.store.get_run(text)
        assert found is not None
        assert (found.run_id, found.workflow_id, found.workflow_type, found.queue) == (text,) * 4
        assert await world.store.find_run(text) == found
        assert await world.store.list_runs(RunFilter(workflow_id=text, workflow_type=text)) == [found]
        (taken,) = (await world.store.claim_runs("worker-1", [text or "token"], [text])).rows
        assert [message.data for message in taken.messages] == [text]
        await world.do(advance(text, claim=taken.run.claim, status="completed", outcome=text))
        (closed,) = await world.store.closed([text])
        assert closed.outcome == text

    @kept
    async def test_what_an_activity_carries_comes_back_equal(self, world: World, text: str) -> None:
        row = activity_row(run_id=text, name=text, queue=text, data=text, heartbeat=text, last_failure=text)
        await world.activity(**{name: getattr(row, name) for name in row.__struct_fields__})
        assert await world.activities(text) == [row]
        await world.register()
        (taken,) = (await world.store.claim_activities("worker-1", ["token"], [text], [text])).rows
        assert (taken.name, taken.data) == (text, text)

    async def test_texts_that_only_look_alike_are_different(self, world: World) -> None:
        alike = ["order", "ORDER", "order ", KEPT["composed"], KEPT["combining"], "1", "01", "1.0"]
        for text in alike:
            await world.do(CreateRun(run_row(run_id=text, workflow_id=text), ()))
        for text in alike:
            found = await world.store.find_run(text)
            assert found is not None
            assert found.run_id == text

    @pytest.mark.parametrize("size", [1_000, 100_000, 4_000_000])
    async def test_large_payloads_come_back_equal(self, world: World, size: int) -> None:
        await world.start()
        text = "\N{SNOWMAN}\\\"'x" * (size // 6)
        await world.do(advance(data=text))
        await world.do(Deliver(NewMessage(text), run_id="run-1"))
        assert (await world.store.load(["run-1"]))["run-1"][0].data == text
        assert text in await world.inbox()

    @pytest.mark.parametrize("instant", [0, -1, 1, FOREVER - 1, FOREVER])
    async def test_instants_come_back_equal(self, world: World, instant: int) -> None:
        row = TimerRow("run-1", 7, instant)
        await world.do(ScheduleTimer(row))
        assert (await world.store.pending("run-1")).timers == [row]

    @refused
    async def test_text_that_no_database_holds_is_refused_alone(self, world: World, text: str) -> None:
        await world.start(1)
        bad: list[Change] = [
            CreateRun(run_row(2, workflow_id=text), ()),
            CreateRun(run_row(2), (NewMessage(text),)),
            Deliver(NewMessage(text), run_id="run-1"),
            Deliver(NewMessage("good", key=text), run_id="run-1"),
            advance(data=text),
        ]
        before = await everything(world.store)
        results = await world.store.commit([(change,) for change in bad])
        assert {result.reason for result in results if isinstance(result, Conflict)} == {"unfit"}
        assert await everything(world.store) == before
        good = Deliver(NewMessage("good"), run_id="run-1")
        results = await world.store.commit([(bad[2],), (good,), (good, bad[3])])
        assert [type(result) for result in results] == [Conflict, Receipt, Conflict]
        assert (await world.run()).inbox_last == 2

    @refused
    async def test_what_no_database_holds_is_not_found(self, world: World, text: str) -> None:
        await world.register()
        store = world.store
        assert await store.get_run(text) is None
        assert await store.find_run(text) is None
        known = await world.closed()
        found = await store.load([text, known.run_id])
        assert (found[text], len(found[known.run_id])) == ([], known.tasks)
        assert await store.children(text) == []
        assert await store.closed([text]) == []
        assert await store.attempts([(text, 1)]) == []
        assert (await store.pending(text)).messages == []
        assert await store.list_runs(RunFilter(workflow_id=text)) == []
        assert (await store.claim_runs(text, ["token"], ["order"])).rows == []
        assert (await store.claim_runs("worker-1", ["token"], [text])).rows == []
        assert (await store.claim_activities("worker-1", ["token"], [text], [text])).rows == []
