"""Clients of a simulation: they start, signal and cancel, and write down what was acknowledged."""

import asyncio
from typing import TYPE_CHECKING, Any

from derecho import Client, StoreError, WorkflowError
from tests.properties.machine import run_program
from tests.simulation import workload
from tests.simulation.workload import LETTER, expected, random_plan, random_program

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

_MOST = 12
"""Runs that are open at once, after which nobody starts more."""


class Actor:
    """One client; it does one thing after another, until the faults are over."""

    def __init__(self, simulation: "Simulation", client: Client, name: str) -> None:
        self.simulation = simulation
        self.client = client
        self.name = name
        self._dice = simulation.dice
        self._count = 0

    async def act(self) -> None:
        while self.simulation.faults.active:
            await asyncio.sleep(self._dice.random() * 1.5)
            busy = len(self.simulation.server.store._tables.open_runs) >= _MOST
            action = self._write if busy or self._dice.random() < 0.5 else self._start
            try:
                await action()
            except (StoreError, WorkflowError):
                continue  # nothing is promised

    def _next(self) -> int:
        self._count += 1
        return self._count

    async def _start(self) -> None:
        number = self._next()
        id = f"{self.name}/{number}"
        call, result = self._call(id)
        for _ in range(3):
            try:
                await self.client.start(call, id=id, if_running="use_existing", if_closed="return_existing")
            except StoreError:
                continue
            self.simulation.ledger.started[id] = result
            return

    def _call(self, id: str) -> tuple[Any, list[str] | None]:
        match self._dice.choice(("order", "order", "mailbox", "courier", "family", "careful", "program", "program")):
            case "order":
                plan = random_plan(self._dice)
                return workload.order.bind(id, plan), expected(id, plan)
            case "mailbox":
                return workload.mailbox.bind([]), None
            case "courier":
                targets = [self._some_mailbox() or "nobody" for _ in range(self._dice.randint(1, 4))]
                return workload.courier.bind(id, targets), None
            case "family":
                return workload.family.bind(id, self._some_mailbox() or f"{id}/own"), None
            case "careful":
                return workload.careful.bind(id), None
            case _:
                return run_program.bind(random_program(self._dice), 1), None

    def _open(self, kind: str) -> str | None:
        tables = self.simulation.server.store._tables
        ids = [id for id, run_id in tables.open_runs.items() if tables.runs[run_id].workflow_type == kind]
        return self._dice.choice(ids) if ids else None

    def _some_mailbox(self) -> str | None:
        return self._open("mailbox")

    async def _write(self) -> None:
        luck = self._dice.random()
        mailbox = self._some_mailbox()
        if luck < 0.75 and mailbox is not None:
            await self._send(mailbox)
            return
        kind = self._dice.choice(("careful", "program", "order"))
        id = self._open(kind)
        if id is not None:
            self.simulation.disturb(id)
            await self.client.get_by_id(id).cancel("enough", timeout=self._dice.choice((None, 5.0)))

    async def _send(self, mailbox: str) -> None:
        """Once, and again under the same key until the answer is known."""
        number = self._next()
        for turn in range(4):
            try:
                await self.client.get_by_id(mailbox).signal(LETTER, [self.name, number], key=f"{self.name}:{number}")
            except StoreError:
                continue
            self.simulation.ledger.letters[mailbox].append((self.name, number))
            if turn == 0 and self._dice.random() < 0.2:
                await self.client.get_by_id(mailbox).signal(LETTER, [self.name, number], key=f"{self.name}:{number}")
            return
