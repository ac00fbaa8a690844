"""The auditor as the last line of a test."""

from derecho import Store
from derecho.audit import audit


async def assert_sound(store: Store) -> None:
    """No invariant is violated by what a test has left in a store."""
    violations = await audit(store)
    assert not violations, "\n".join(["the auditor found:", *map(str, violations)])
