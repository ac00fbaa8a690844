"""Durable workflow execution for Python."""

__all__: list[str] = []
