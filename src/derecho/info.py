"""What a run's code is told about the run: who it is, why it should end; and the log that is silent on replay."""

import logging
from collections.abc import Callable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, NamedTuple

from derecho.journal.payloads import Payload
from derecho.journal.policies import RetryRule
from derecho.runtime.execution import Execution


class WorkflowInfo(NamedTuple):
    """Who this run is."""

    workflow_id: str
    run_id: str
    workflow_type: str
    start_time: datetime
    attempt: int
    parent_id: str | None
    history_length: int


class CancelInfo(NamedTuple):
    """A request to cancel: why, and since when."""

    reason: str
    requested_at: datetime


class StepOptions(NamedTuple):
    """How a step is retried, and how long one attempt may take (microseconds)."""

    retry: RetryRule | None
    timeout: int | None
    encode: Callable[[Any], Payload]
    transactional: bool = False


class ReplayLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the run to every record, and is silent while history is replayed."""

    def __init__(self, execution: Execution, extra: Mapping[str, object]) -> None:
        super().__init__(logging.getLogger("derecho.workflow"), dict(extra))
        self._execution = execution

    def isEnabledFor(self, level: int) -> bool:  # logging's own name
        execution = self._execution
        return not (execution.replaying or execution.closing) and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
