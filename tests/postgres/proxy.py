"""A relay in front of a server that understands the protocol, and breaks a connection at the statement that it is told.

It counts the messages that begin a statement (Query, Execute) and knows their text, so that a test can say which
statement is to be struck, and count how many were the ones that write.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Where = Literal["before", "after", "silent_before", "silent_after", "refused"]
"""The connection is cut before the server gets the statement, or when it has executed it; or nothing is cut and nobody
hears of the other any more, which is what a machine that is gone looks like; or the server says no."""

FATAL = ("57P", "08", "58")


class Proxy:
    """`strike` is asked for each statement with its text whether it is to be struck: in one of the ways, or not at all.

    `struck` counts what was, by way and kind of statement; "write" are those that commit something.
    """

    def __init__(self, server: str | int) -> None:
        self.server = server  # the path of its socket, or its port; new connections go there
        self.strike: Callable[[str], Where | None] = lambda sql: None
        self.sqlstate = "57014"
        self.statements = 0
        self.struck: Counter[str] = Counter()
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
        if isinstance(self.server, int):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server)
        else:
            server_reader, server_writer = await asyncio.open_unix_connection(self.server)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await Session(self, reader, writer, server_reader, server_writer).relay()
        finally:
            for stream in (writer, server_writer):
                stream.close()
            self._tasks.discard(task)

    def judge(self, sql: str) -> Where | None:
        self.statements += 1
        where = self.strike(sql)
        if where is not None:
            self.struck[where] += 1
            self.struck["write" if writes(sql) else "other"] += 1
        return where


def writes(sql: str) -> bool:
    """Whether a statement commits something: the writing statement of a batch, or the end of a transaction."""
    return sql.startswith("COMMIT") or "WITH workers_locked" in sql


class Session:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server_reader, self._server_writer = server_reader, server_writer
        self._prepared: dict[bytes, str] = {}
        self._answered = asyncio.Event()
        self._in_transaction = b"I"
        self._deaf = False

    async def relay(self) -> None:
        length = int.from_bytes(await self._reader.readexactly(4))
        self._server_writer.write(length.to_bytes(4) + await self._reader.readexactly(length - 4))
        back = asyncio.create_task(self._back())
        try:
            await self._forth()
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)

    async def _forth(self) -> None:
        held = b""
        sql = ""
        while True:
            kind, body = await message(self._reader)
            data = kind + (len(body) + 4).to_bytes(4) + body
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text.decode().strip()
            elif kind == b"B":  # it is held back until it is known what becomes of its Execute
                sql, held = self._prepared[body.split(b"\0", 2)[1]], data
                continue
            elif kind == b"Q":
                sql = body.rstrip(b"\0").decode().strip()
            if kind in (b"Q", b"E"):
                where = self._proxy.judge(sql)
                if where == "refused":
                    held = b""
                    if not await self._refuse(is_extended=kind == b"E"):
                        return
                    continue
                if where is not None:
                    if where.endswith("after"):
                        await self._execute(held + data + (b"S\0\0\0\4" if kind == b"E" else b""))
                    if where.startswith("silent"):
                        while await self._reader.read(65536):  # until the client gives up, and the server sees that
                            pass
                    return
            self._server_writer.write(held + data)
            held = b""
            await self._server_writer.drain()

    async def _execute(self, data: bytes) -> None:
        """Let the server do it, and keep its answer."""
        self._deaf = True
        self._answered.clear()
        self._server_writer.write(data)
        await self._server_writer.drain()
        await self._answered.wait()

    async def _refuse(self, *, is_extended: bool) -> bool:
        """Answer in the server's place; whether the session goes on."""
        if is_extended:
            await message(self._reader)  # the Sync that belongs to it
        state = self._proxy.sqlstate
        fatal = state.startswith(FATAL)
        fields = f"S{'FATAL' if fatal else 'ERROR'}\0C{state}\0Mstruck by the proxy\0\0".encode()
        self._writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        if not fatal:
            status = b"I" if self._in_transaction == b"I" else b"E"
            self._writer.write(b"Z\0\0\0\5" + status)
        await self._writer.drain()
        return not fatal

    async def _back(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, body = await message(self._server_reader)
                if kind == b"Z":
                    self._in_transaction = body
                    self._answered.set()
                if not self._deaf:
                    self._writer.write(kind + (len(body) + 4).to_bytes(4) + body)
                    await self._writer.drain()
        self._answered.set()
        if not self._deaf:
            self._writer.close()


async def message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    length = int.from_bytes(await reader.readexactly(4))
    return kind, await reader.readexactly(length - 4)
