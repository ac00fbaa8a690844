"""Derecho: durable workflow execution through event sourcing, embedded in your application, on one database.

A workflow is straight-line `async def` code; after a crash, a deploy or a week of downtime it goes on exactly where it
was, because its history is replayed. See README.md for a first workflow and docs/reading-the-code.md for the route
through the code.
"""

import importlib
from typing import TYPE_CHECKING, Any

from derecho.activity import Activity, ActivityDefinition, SyncActivity, activity, activity_ref
from derecho.activity_context import ActivityContext, current_activity, heartbeat
from derecho.callbacks import Callback
from derecho.client import Client
from derecho.clock import Duration
from derecho.context import Context
from derecho.engine import Engine
from derecho.errors import (
    ActivityCancelled,
    ActivityFailed,
    ActivityTimeout,
    CallbackClosed,
    ChannelClosed,
    ChildWorkflowFailed,
    DefinitionError,
    DerechoError,
    DeterminismError,
    NondeterminismError,
    NonRetryable,
    PayloadError,
    ProcessDied,
    RetryAfter,
    StoreError,
    StoreUnavailable,
    WorkflowAlreadyRunning,
    WorkflowBlocked,
    WorkflowCancelled,
    WorkflowError,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowTerminated,
)
from derecho.handle import Handle, Run
from derecho.history import History
from derecho.info import CancelInfo, WorkflowInfo
from derecho.invocation import Invocation
from derecho.journal.json_codec import JSONCodec
from derecho.journal.payloads import Codec
from derecho.journal.policies import RetryPolicy
from derecho.journal.store import Store
from derecho.messages import Signal, SignalChannel
from derecho.queues import Queue
from derecho.regression import replay
from derecho.runtime.closing import ContinueAsNew
from derecho.runtime.handles import ChildHandle, Timer
from derecho.runtime.loop import Future
from derecho.runtime.pipe import Channel
from derecho.runtime.selector import Selector
from derecho.saga import Saga
from derecho.stores import open_store
from derecho.stores.memory import MemoryStore
from derecho.workflow import Workflow, WorkflowDefinition, workflow, workflow_ref

if TYPE_CHECKING:
    from derecho.checking import CheckReport, check
    from derecho.debugging import debug
    from derecho.stores.postgres import PostgresStore
    from derecho.stores.sqlite import SQLiteStore

__all__ = [
    "Activity",
    "ActivityCancelled",
    "ActivityContext",
    "ActivityDefinition",
    "ActivityFailed",
    "ActivityTimeout",
    "Callback",
    "CallbackClosed",
    "CancelInfo",
    "Channel",
    "ChannelClosed",
    "CheckReport",
    "ChildHandle",
    "ChildWorkflowFailed",
    "Client",
    "Codec",
    "Context",
    "ContinueAsNew",
    "DefinitionError",
    "DerechoError",
    "DeterminismError",
    "Duration",
    "Engine",
    "Future",
    "Handle",
    "History",
    "Invocation",
    "JSONCodec",
    "MemoryStore",
    "NonRetryable",
    "NondeterminismError",
    "PayloadError",
    "PostgresStore",
    "ProcessDied",
    "Queue",
    "RetryAfter",
    "RetryPolicy",
    "Run",
    "SQLiteStore",
    "Saga",
    "Selector",
    "Signal",
    "SignalChannel",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "SyncActivity",
    "Timer",
    "Workflow",
    "WorkflowAlreadyRunning",
    "WorkflowBlocked",
    "WorkflowCancelled",
    "WorkflowDefinition",
    "WorkflowError",
    "WorkflowFailed",
    "WorkflowInfo",
    "WorkflowNotFound",
    "WorkflowTerminated",
    "activity",
    "activity_ref",
    "check",
    "current_activity",
    "debug",
    "heartbeat",
    "open_store",
    "replay",
    "workflow",
    "workflow_ref",
]

__version__ = "0.1.0"

_LATER = {
    "CheckReport": "derecho.checking",
    "PostgresStore": "derecho.stores.postgres",
    "SQLiteStore": "derecho.stores.sqlite",
    "check": "derecho.checking",
    "debug": "derecho.debugging",
}


def __getattr__(name: str) -> Any:
    """What not every program needs is imported when it is asked for; PostgreSQL's store needs asyncpg."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
