"""A relay in front of a server that loses connections on purpose: the n-th message to the server, or its answer."""

import asyncio
from typing import Literal

Where = Literal["before", "after"]


class Proxy:
    """Counts the frontend messages Query, Execute (what begins a statement). At `cut_at` the connection dies: `before`
    the server gets it, or `after` it has, so that only the answer is lost."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.cut_at = -1
        self.where: Where = "before"
        self.statements = 0
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_unix_connection(self._path)
        back = asyncio.create_task(_copy(server_reader, writer))
        try:
            await self._forward(reader, server_writer, back)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for stream in (writer, server_writer):
                stream.close()
            self._tasks.discard(task)

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: "asyncio.Task[None]"
    ) -> None:
        length = int.from_bytes(await reader.readexactly(4))
        writer.write(length.to_bytes(4) + await reader.readexactly(length - 4))
        while True:
            kind = await reader.readexactly(1)
            length = int.from_bytes(await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            if kind in (b"Q", b"E"):
                self.statements += 1
                if self.statements == self.cut_at:
                    self.cuts += 1
                    if self.where == "after":
                        back.cancel()
                        writer.write(kind + length.to_bytes(4) + body)
                        if kind == b"E":
                            writer.write(b"S\x00\x00\x00\x04")
                        await writer.drain()
                        await asyncio.sleep(0.05)
                    return
            writer.write(kind + length.to_bytes(4) + body)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
