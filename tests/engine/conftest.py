"""Fixtures: every test runs on each kind of store."""

from tests.support.world import clock as clock
from tests.support.world import store as store
