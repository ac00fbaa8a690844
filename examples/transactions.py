"""Rows of your own in the same commit: a booking with its outcome, a request with its workflow.

python examples/transactions.py [DATABASE]
"""

import asyncio
import logging
import sqlite3
import tempfile
from typing import Any

import derecho
from derecho import Context, Engine


async def take_from_stock(connection: Any, article: str, pieces: int) -> int:
    """Rows and result are one commit, made once, whatever is killed when."""
    await connection.execute("UPDATE stock SET pieces = pieces - ? WHERE article = ?", (pieces, article))
    [[left]] = await connection.execute("SELECT pieces FROM stock WHERE article = ?", (article,))
    if left < 0:
        raise ValueError(f"{-left} {article} too few")  # undoes the UPDATE
    return int(left)


@derecho.workflow
async def reserve(ctx: Context, article: str, pieces: int) -> str:
    try:
        return f"{await ctx.transaction(take_from_stock, article, pieces)} {article} left"
    except ValueError as exc:
        return str(exc)


async def main(database: str) -> None:
    async with Engine(f"sqlite:///{database}", workflows=[reserve]) as engine:
        own = sqlite3.connect(database)  # a connection of the application's, to the same file
        own.execute("CREATE TABLE stock (article TEXT, pieces INTEGER)")
        own.execute("CREATE TABLE requests (article TEXT, pieces INTEGER)")
        own.execute("INSERT INTO stock VALUES ('mugs', 10)")
        own.commit()

        for pieces in (7, 7):
            own.execute("INSERT INTO requests VALUES ('mugs', ?)", (pieces,))
            handle = await engine.client.within(own).start(reserve.bind("mugs", pieces))
            own.commit()  # the request is stored and its workflow started, or neither
            print(await handle.result(timeout=10))
        print(own.execute("SELECT pieces FROM stock").fetchone()[0], "in stock")
        own.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(f"{folder}/stock.db"))
