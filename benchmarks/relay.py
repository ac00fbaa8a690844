"""A relay before a PostgreSQL server that counts what passes: statements, round trips, bytes.

It understands only where a message of the server begins. `CommandComplete` or `PortalSuspended` (enough rows were
fetched) ends a statement, `ReadyForQuery` a round trip. It takes CPU from what is measured: it is for counting, never
for timing.
"""

import asyncio
import tempfile
import threading
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qs, urlsplit


class Counts(NamedTuple):
    statements: int
    round_trips: int
    bytes: int

    def since(self, before: "Counts", share: int) -> "list[tuple[str, float]]":
        """What came since, for each of so many."""
        names = ("statements", "round trips", "bytes sent and received")
        return [(name, (now - then) / share) for name, now, then in zip(names, self, before, strict=True)]


class Relay:
    """A context manager; `url` is the address through the relay. The server's socket is given by `host=` in its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._directory = tempfile.TemporaryDirectory(prefix="relay-")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}?host={self._directory.name}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._counts = [0, 0, 0]
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def counts(self) -> Counts:
        return Counts(*self._counts)

    def __enter__(self) -> Self:
        self._thread.start()
        socket = f"{self._directory.name}/.s.PGSQL.5432"
        serving = asyncio.start_unix_server(self._serve, socket)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._directory.cleanup()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        for task in (self._there(reader, server_writer), self._back(server_reader, writer)):
            running = self._loop.create_task(task)
            self._tasks.add(running)
            running.add_done_callback(self._tasks.discard)

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self._counts[2] += len(data)
            writer.write(data)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pending = bytearray()
        while data := await reader.read(65536):
            self._counts[2] += len(data)
            writer.write(data)
            pending += data
            start = 0
            while len(pending) - start >= 5:
                end = start + 1 + int.from_bytes(pending[start + 1 : start + 5])
                if end > len(pending):
                    break
                self._counts[0] += pending[start] in b"Cs"
                self._counts[1] += pending[start] == ord("Z")
                start = end
            del pending[:start]
        writer.close()
