"""Testing workflows, activities and stores: a clock that is moved by hand, an activity's context without an engine, and
the suite that every store passes."""

from derecho.testing.activities import TestedActivity, activity_context

__all__ = ["TestedActivity", "activity_context"]
