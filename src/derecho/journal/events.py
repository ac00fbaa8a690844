"""Everything that can be recorded in a history, as one tagged union.

Events come in two kinds. *Facts* come from outside the workflow's code (an activity's result, a fired timer, a signal);
they wait in the inbox until a workflow task hands them to the run. *Commands* are what the code asks for during the
task. One history row holds one workflow task: its facts, a `WorkflowTaskCompleted`, its commands.

Event ids are positions: 1, 2, 3 … without gaps. An activity, timer, step or child is known by the id of the event that
scheduled it, so its identity needs no counter and is known before the commit. New fields need defaults; existing
ones never change their meaning, because histories are for ever.
"""

from typing import TypeAlias

from derecho.journal.base import ClosePolicy, Command, Event, OnCancel, kind
from derecho.journal.commands import (
    ActivityCancelRequested,
    ActivityScheduled,
    ChildCancelRequested,
    ChildScheduled,
    PatchMarked,
    SideEffectRecorded,
    SignalSent,
    StepScheduled,
    TimerCancelled,
    TimerScheduled,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowContinuedAsNew,
    WorkflowFailed,
    duration_class,
)
from derecho.journal.facts import (
    ActivityCancelled,
    ActivityCompleted,
    ActivityFailed,
    ActivityTimedOut,
    CancelRequested,
    ChildCancelled,
    ChildCompleted,
    ChildFailed,
    ChildRefused,
    ChildStarted,
    ChildTerminated,
    ParentLink,
    SignalDelivered,
    SignalReceived,
    SignalUndelivered,
    StepCompleted,
    StepFailed,
    TimerFired,
    WorkflowStarted,
    WorkflowTaskCompleted,
    WorkflowTerminated,
)

__all__ = [
    "ActivityCancelRequested",
    "ActivityCancelled",
    "ActivityCompleted",
    "ActivityFailed",
    "ActivityScheduled",
    "ActivityTimedOut",
    "AnyEvent",
    "CancelRequested",
    "ChildCancelRequested",
    "ChildCancelled",
    "ChildCompleted",
    "ChildFailed",
    "ChildRefused",
    "ChildScheduled",
    "ChildStarted",
    "ChildTerminated",
    "ClosePolicy",
    "Command",
    "CommandEvent",
    "Event",
    "Fact",
    "OnCancel",
    "ParentLink",
    "PatchMarked",
    "SideEffectRecorded",
    "SignalDelivered",
    "SignalReceived",
    "SignalSent",
    "SignalUndelivered",
    "StepCompleted",
    "StepFailed",
    "StepScheduled",
    "TERMINAL",
    "Terminal",
    "TimerCancelled",
    "TimerFired",
    "TimerScheduled",
    "WorkflowCancelled",
    "WorkflowCompleted",
    "WorkflowContinuedAsNew",
    "WorkflowFailed",
    "WorkflowStarted",
    "WorkflowTaskCompleted",
    "WorkflowTerminated",
    "duration_class",
    "kind",
]

Fact: TypeAlias = (
    WorkflowStarted
    | SignalReceived
    | CancelRequested
    | ActivityCompleted
    | ActivityFailed
    | ActivityTimedOut
    | ActivityCancelled
    | TimerFired
    | StepCompleted
    | StepFailed
    | ChildStarted
    | ChildRefused
    | ChildCompleted
    | ChildFailed
    | ChildCancelled
    | ChildTerminated
    | SignalDelivered
    | SignalUndelivered
)
Terminal: TypeAlias = (
    WorkflowCompleted | WorkflowFailed | WorkflowCancelled | WorkflowContinuedAsNew | WorkflowTerminated
)
CommandEvent: TypeAlias = (
    ActivityScheduled
    | ActivityCancelRequested
    | TimerScheduled
    | TimerCancelled
    | StepScheduled
    | SideEffectRecorded
    | ChildScheduled
    | ChildCancelRequested
    | SignalSent
    | PatchMarked
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowCancelled
    | WorkflowContinuedAsNew
)
AnyEvent: TypeAlias = Fact | WorkflowTaskCompleted | CommandEvent | WorkflowTerminated

TERMINAL: tuple[type[Event], ...] = (
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowCancelled,
    WorkflowContinuedAsNew,
    WorkflowTerminated,
)
