"""Fixtures: every test runs on each kind of store."""

import pytest

from derecho import Store
from tests.support.clocks import StandingClock
from tests.support.flows import Flows
from tests.support.world import clock as clock
from tests.support.world import store as store


@pytest.fixture
def flows(store: Store, clock: StandingClock) -> Flows:
    return Flows(store, clock)
