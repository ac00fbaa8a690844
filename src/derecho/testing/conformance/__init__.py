"""The suite that every store passes. Write one fixture, import everything, run pytest (with pytest-asyncio):

    import pytest
    from derecho.testing.conformance import *

    @pytest.fixture
    def new_store():
        return lambda clock: MyStore(clock=clock)   # a new, empty store for each test

The fixture gives a function from a clock (`derecho.clock.Clock`) to a store; the suite opens and closes it. A store is
right when no test fails and none is skipped.
"""

import pytest

for _module in (
    "batches",
    "births",
    "claims",
    "hints",
    "kit",
    "letting_go",
    "messages",
    "reads",
    "runs",
    "tasks",
    "values",
):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from derecho.testing.conformance.batches import TestBatches, TestOneTransition  # noqa: E402  # after the rewriting
from derecho.testing.conformance.births import TestFirstTask  # noqa: E402
from derecho.testing.conformance.claims import (  # noqa: E402
    TestClaimRuns,
    TestSuspects,
    TestTerminateRequests,
    TestZombies,
)
from derecho.testing.conformance.fixtures import clock, world  # noqa: E402
from derecho.testing.conformance.hints import TestHints  # noqa: E402
from derecho.testing.conformance.kit import StoreFactory, World  # noqa: E402
from derecho.testing.conformance.letting_go import TestForgetRun, TestLettingGo  # noqa: E402
from derecho.testing.conformance.messages import (  # noqa: E402
    TestDeliver,
    TestDeliverAndClaim,
    TestKeys,
    TestReplies,
)
from derecho.testing.conformance.reads import TestListRuns, TestNow, TestReads, TestWorkers  # noqa: E402
from derecho.testing.conformance.runs import (  # noqa: E402
    TestAdvance,
    TestClose,
    TestCreateRun,
)
from derecho.testing.conformance.tasks import (  # noqa: E402
    TestCancelActivity,
    TestClaimActivities,
    TestOutcomes,
    TestOverdue,
    TestTimers,
)
from derecho.testing.conformance.values import TestValues  # noqa: E402

__all__ = [
    "StoreFactory",
    "TestAdvance",
    "TestBatches",
    "TestCancelActivity",
    "TestClaimActivities",
    "TestClaimRuns",
    "TestClose",
    "TestCreateRun",
    "TestDeliver",
    "TestDeliverAndClaim",
    "TestFirstTask",
    "TestForgetRun",
    "TestHints",
    "TestKeys",
    "TestLettingGo",
    "TestListRuns",
    "TestNow",
    "TestOneTransition",
    "TestOutcomes",
    "TestOverdue",
    "TestReads",
    "TestReplies",
    "TestSuspects",
    "TestTerminateRequests",
    "TestTimers",
    "TestValues",
    "TestWorkers",
    "TestZombies",
    "World",
    "clock",
    "world",
]
