"""The shop's HTTP server, a process of its own: `python -m shop.service LEDGER [--seed N]` prints its port.

`POST /reserve`, `/charge`, `/ship`, `/release` and `/refund` take JSON and an `Idempotency-Key`. 200 is done, 4xx is a
refusal for good, 503 means that the caller cannot know and should ask again. One key has one effect, whoever asks how
often: the look for an earlier answer and the effect are one transaction.

The weather is bad: calls are now and then slow, and some first calls of a key fail, half of these after the effect.
"""

import argparse
import json
import os
import random
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from shop.counter import Refusal, serve
from shop.ledger import Effect, Ledger
from shop.rules import SHELF


@dataclass(frozen=True)
class Weather:
    """What one call goes through: seconds before and after the effect, and where it fails, if it does."""

    before: float
    after: float
    fails: str | None

    @classmethod
    def of(cls, seed: int, key: str, earlier: int) -> "Weather":
        dice = random.Random(f"{seed}:{key}:{earlier}")
        before = 0.005 + 0.04 * dice.random() + (0.35 * dice.random() if dice.random() < 0.08 else 0)
        after = 0.002 + 0.02 * dice.random() + (0.25 * dice.random() if dice.random() < 0.05 else 0)
        roll = dice.random() if earlier == 0 else 1.0
        return cls(before, after, "before" if roll < 0.025 else "after" if roll < 0.05 else None)


class Handler(BaseHTTPRequestHandler):
    """One request. The class attributes are set by `make_server`."""

    ledger: ClassVar[Ledger]
    seed: ClassVar[int | None]

    def do_POST(self) -> None:
        key = self.headers.get("Idempotency-Key", "")
        operation = self.path.strip("/")
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        except ValueError:
            body = None
        if not key or not isinstance(body, dict):
            self._answer(400, {"error": "a JSON object and an Idempotency-Key are needed"})
            return
        call, earlier = self.ledger.begin(key, operation)
        weather = Weather.of(self.seed, key, earlier) if self.seed is not None else Weather(0, 0, None)
        time.sleep(weather.before)
        status, answer, repeat = 503, {"error": "try again"}, False
        if weather.fails != "before":
            effect, repeat = settle(self.ledger, key, operation, body)
            time.sleep(weather.after)
            if weather.fails != "after":
                status, answer = effect.status, effect.answer
        self.ledger.end(call, status, repeat=repeat)
        self._answer(status, answer)

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            pass  # The caller is dead. What was done is done: the next call with this key will be told.

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the ledger has it all."""


def settle(ledger: Ledger, key: str, operation: str, body: dict[str, Any]) -> tuple[Effect, bool]:
    """The one effect of a key, and whether it had happened before."""
    with ledger.transaction():
        earlier = ledger.answered(key)
        if earlier is not None:
            return earlier, True
        try:
            order_id, answer, details = serve(ledger, operation, body)
            effect = Effect(key, operation, order_id, time.time(), 200, answer, details)
        except Refusal as refusal:
            order_id = str(body.get("order", ""))
            effect = Effect(key, operation, order_id, time.time(), refusal.status, {"error": str(refusal)}, {})
        ledger.add(effect)
        return effect, False


class Server(ThreadingHTTPServer):
    request_queue_size = 256  # The default of 5 turns a burst of callers into connection timeouts.


def make_server(ledger: Ledger, seed: int | None) -> Server:
    """A server on a free port of the loopback. Without a seed the weather is fine."""
    handler = type("BoundHandler", (Handler,), {"ledger": ledger, "seed": seed})
    return Server(("127.0.0.1", 0), handler)


def stop_at_end_of_input(server: Server) -> None:
    """Whoever started this process holds its standard input; when that one is gone, so is this."""
    while os.read(0, 1024):
        pass
    server.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(prog="shop.service", description="A payment and stock service on the loopback.")
    parser.add_argument("ledger", type=Path, help="its SQLite file")
    parser.add_argument("--seed", type=int, help="of its bad weather; without it there is none")
    options = parser.parse_args()
    ledger = Ledger(options.ledger, SHELF)
    server = make_server(ledger, options.seed)
    threading.Thread(target=stop_at_end_of_input, args=(server,), daemon=True).start()
    print(server.server_port, flush=True)
    server.serve_forever(poll_interval=0.1)
    ledger.close()


if __name__ == "__main__":
    main()
