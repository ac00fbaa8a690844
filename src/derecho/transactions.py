"""`ctx.transaction`: a step that writes rows of the user's, recorded in the very commit that writes them."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

from derecho.closures import result_type
from derecho.info import StepOptions
from derecho.invocation import check_name
from derecho.journal import events as ev
from derecho.journal.signatures import decode_value, encode_value
from derecho.runtime.execution import Execution
from derecho.runtime.loop import Future


def new_transaction(
    execution: Execution,
    fn: Callable[..., Awaitable[Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    source: str,
) -> Future[Any]:
    name = check_name(getattr(fn, "__name__", "transaction"), "transaction")
    annotation = result_type(fn, None, f"transaction {name!r}")
    converter, what = execution.converter, f"the result of transaction {name!r}"

    def run(connection: Any) -> Coroutine[Any, Any, Any]:
        return cast(Coroutine[Any, Any, Any], fn(connection, *args, **kwargs))

    return execution.schedule_step(
        ev.StepScheduled(name, source=source),
        lambda payload, converter: decode_value(payload, annotation, converter, what),
        run,
        StepOptions(None, None, lambda value: encode_value(value, annotation, converter, what), transactional=True),
    )
