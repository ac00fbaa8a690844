"""Testing workflows, activities and stores: the real engine on a clock that jumps, an activity's context without an
engine, a clock that is moved by hand, faults at every commit, and the suite that every store passes."""

from derecho.testing.activities import TestedActivity, activity_context
from derecho.testing.clock import VirtualClock
from derecho.testing.crashes import CrashFound, CrashReport
from derecho.testing.environment import Environment, TestRun
from derecho.testing.stubs import ActivityCall
from derecho.testing.trials import SteeredRun

__all__ = [
    "ActivityCall",
    "CrashFound",
    "CrashReport",
    "Environment",
    "SteeredRun",
    "TestRun",
    "TestedActivity",
    "VirtualClock",
    "activity_context",
]
