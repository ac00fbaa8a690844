"""How an application calls the shop: JSON over HTTP on asyncio streams, one connection a call.

Errors are of two sorts. `Rejected` is the shop's last word. Everything else (`ShopUnavailable`, a broken connection, a
timeout) says nothing about what happened: call again with the same key.
"""

import asyncio
from typing import Any

import msgspec


class Rejected(Exception):
    """The shop says no, and will say so again: sold out, card declined, no carrier."""


class ShopUnavailable(Exception):
    """No answer that could be relied on."""


class Shop:
    def __init__(self, port: int) -> None:
        self.port = port

    async def call(self, operation: str, key: str, **body: Any) -> str:
        """Do one operation under an idempotency key; returns the id that the shop gave to its effect."""
        status, answer = await self._post(f"/{operation}", key, msgspec.json.encode(body))
        if status == 200:
            return str(answer["id"])
        if status in (402, 409, 422):
            raise Rejected(answer["error"])
        raise ShopUnavailable(f"{operation} answered {status}: {answer.get('error', '')}")

    async def _post(self, path: str, key: str, data: bytes) -> tuple[int, dict[str, Any]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"POST {path} HTTP/1.0\r\nIdempotency-Key: {key}\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            received = await reader.read()  # The server closes the connection behind its answer.
        finally:
            writer.close()
        head_bytes, _, body = received.partition(b"\r\n\r\n")
        try:
            return int(head_bytes.split()[1]), msgspec.json.decode(body, type=dict[str, Any])
        except (IndexError, ValueError) as error:  # msgspec's decoding errors are ValueErrors
            raise ShopUnavailable(f"{path} broke off after {len(received)} bytes") from error
