"""Runs that wait for code which no running engine has: shown when somebody looks at them, and told in the log."""

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from derecho.callbacks import CALLBACK
from derecho.errors import StoreError
from derecho.journal.model import ActivityRow, RunRow, type_and_version

if TYPE_CHECKING:
    from derecho.client import Client

log = logging.getLogger("derecho.engine")

PATIENCE = 10.0
"""Seconds in which an engine that has the code may come, as in a deploy that starts one after another."""


async def unserved(client: "Client", row: RunRow) -> str | None:
    """Why nobody works on an open run, when engines are up and none serves what it waits for."""
    workers = await client.ask(client.store.workers)
    served = {name for worker in workers for name in worker.serves}
    if not workers:
        return None
    if row.ready_at is not None and f"workflow:{row.kind}" not in served:
        others = any(type_and_version(name)[0] == f"workflow:{row.workflow_type}" for name in served)
        version = f"version {row.version} of " if others else ""
        return f"no running engine has {version}workflow type {row.workflow_type!r}: start one that registers it"
    pending = await client.ask(client.store.pending, row.run_id)
    for activity in pending.activities:
        wanted = {f"activity:{activity.name}", f"queue:{activity.queue}"}
        if activity.claim is not None or activity.queue == CALLBACK:
            continue
        if not any(wanted <= set(worker.serves) for worker in workers):
            where = "" if activity.queue == "default" else f" on queue {activity.queue!r}"
            return f"no running engine has activity {activity.name!r}{where}: start one that registers it"
    return None


class Lookout:
    """Logs, once for each kind of work that this engine leaves to others, that no other engine takes it."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._missed: dict[tuple[str, str | None], str] = {}  # what is not registered here -> a run that waits for it
        self._told: set[str] = set()
        self._is_wanted = asyncio.Event()

    def missed(self, row: RunRow | ActivityRow) -> None:
        """This engine has no code for a run, or for an activity of one."""
        kind = (row.name, row.queue) if isinstance(row, ActivityRow) else (row.kind, None)
        if kind[1] != CALLBACK:
            self._missed[kind] = row.run_id
            self._is_wanted.set()

    async def work(self) -> None:
        """Look a while after something was missed, for ever."""
        while True:
            await self._is_wanted.wait()
            await asyncio.sleep(PATIENCE)
            self._is_wanted.clear()
            missed, self._missed = self._missed, {}
            for run_id in missed.values():
                with suppress(StoreError):  # while the store is away nobody works anyway
                    await self._look(run_id)

    async def _look(self, run_id: str) -> None:
        client = self._client
        row = await client.ask(client.store.get_run, run_id)
        reason = await unserved(client, row) if row is not None and row.is_open else None
        if row is not None and reason is not None and reason not in self._told:
            self._told.add(reason)
            about = {name: getattr(row, name) for name in ("workflow_id", "run_id", "workflow_type")}
            log.warning("workflow %r and those like it wait: %s", row.workflow_id, reason, extra=about)
