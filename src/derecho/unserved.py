"""Runs that wait for code which no running engine has."""

from typing import TYPE_CHECKING

from derecho.callbacks import CALLBACK
from derecho.journal.model import RunRow, type_and_version

if TYPE_CHECKING:
    from derecho.client import Client


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
