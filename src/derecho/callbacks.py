"""Promises that somebody outside completes: `ctx.callback(T)` makes one, `client.complete(token, value)` keeps it.

A callback is a scheduled activity that no engine ever claims: it has a row while it is open, the four outcomes of an
activity, and its token is as durable as they are. The secret in the token is drawn once and recorded.
"""

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec

from derecho.errors import CallbackClosed
from derecho.journal import events as ev
from derecho.journal.changes import Conflict, Deliver, FinishActivity, NewMessage
from derecho.journal.payloads import Converter
from derecho.journal.signatures import decode_value
from derecho.journal.wire import decode_events, encode_struct
from derecho.runtime.execution import Execution
from derecho.runtime.handles import ActivityFuture
from derecho.runtime.loop import Future

if TYPE_CHECKING:
    from derecho.client import Client

T = TypeVar("T")

CALLBACK = "derecho.callback"
"""Name and queue of the activities that callbacks are; no engine serves it."""

_command = msgspec.json.Decoder(ev.ActivityScheduled)


class Callback(Generic[T]):
    """A durable promise: give `token` to whoever will complete it, and await `future`."""

    def __init__(self, token: str, future: Future[T]) -> None:
        self.token = token
        self.future = future


class _Token(NamedTuple):
    run_id: str
    activity: int
    secret: str

    @classmethod
    def parse(cls, text: str) -> "_Token":
        run_id, _, rest = text.partition(".")
        activity, _, secret = rest.partition(".")
        if not (run_id and secret and activity.isascii() and activity.isdecimal() and len(activity) < 10):
            raise CallbackClosed(f"{text[:20]!r}… is no token of a callback: pass the whole of `callback.token`")
        return cls(run_id, int(activity), secret)


def new_callback(execution: Execution, type: Any, timeout: int | None, source: str) -> Callback[Any]:
    secret = execution.converter.encode(secrets.token_urlsafe(16), "a token")
    event = ev.ActivityScheduled(CALLBACK, (secret,), queue=CALLBACK, schedule_to_close=timeout, source=source)
    event_id, recorded = execution.command(event)

    def decode(payload: Any, converter: Converter) -> Any:
        return decode_value(payload, type, converter, "the value of a callback")

    future: ActivityFuture[Any] = ActivityFuture(execution, event_id, CALLBACK, decode, "request")
    execution.pending[event_id] = future
    return Callback(f"{execution.run_id}.{event_id}.{_secret(recorded)}", future)


def _secret(event: ev.ActivityScheduled) -> str:
    secret: str = msgspec.json.decode(event.input[0].raw(), type=str)
    return secret


async def complete(client: "Client", text: str, fact: Callable[[int, str], ev.Fact]) -> None:
    """Deliver the outcome of a callback. `fact` makes it of an event id and of a name for the sender.

    Raises CallbackClosed for a token that is wrong, was used, or came too late.
    """
    token = _Token.parse(text)
    pending = await client.ask(client.store.pending, token.run_id)
    row = next((row for row in pending.activities if row.activity == token.activity and row.queue == CALLBACK), None)
    if row is None or not _is_its(token, _command.decode(row.data)):
        raise await _closed(client, token)
    sender = f"callback:{secrets.token_hex(8)}"
    outcome = fact(token.activity, sender)
    worker, claim = client.warm_claim(row.workflow_id, token.run_id)
    message = NewMessage(encode_struct(outcome))
    deliver = Deliver(message, run_id=token.run_id, worker=worker, claim=claim, drop=True)
    result = await client.send((FinishActivity(token.run_id, token.activity, None), deliver), claim, outcome)
    if isinstance(result, Conflict) and not await _was_ours(client, token, sender):
        raise await _closed(client, token)


def _is_its(token: _Token, event: ev.ActivityScheduled) -> bool:
    return secrets.compare_digest(_secret(event).encode(), token.secret.encode("utf-8", "replace"))


async def _was_ours(client: "Client", token: _Token, sender: str) -> bool:
    """Whether the conflict is with an earlier sending of this very commit, whose answer was lost."""
    messages = (await client.ask(client.store.pending, token.run_id)).messages
    rows = (await client.ask(client.store.load, [token.run_id]))[token.run_id]
    return any(sender in data for data in [*(item.data for item in messages), *(row.data for row in rows)])


async def _closed(client: "Client", token: _Token) -> CallbackClosed:
    """Why there is nothing to complete; who does not know the secret learns nothing."""
    rows = (await client.ask(client.store.load, [token.run_id]))[token.run_id]
    events = [event for row in rows for event in decode_events(row.data)]
    event = events[token.activity - 1] if 0 < token.activity <= len(events) else None
    if isinstance(event, ev.ActivityScheduled) and event.queue == CALLBACK and _is_its(token, event):
        return CallbackClosed("this callback was completed before, or its run no longer waits for it")
    return CallbackClosed("this token completes nothing: it is not a token of a callback that this store knows")
