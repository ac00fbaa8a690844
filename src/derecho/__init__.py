"""Durable workflow execution for Python."""
