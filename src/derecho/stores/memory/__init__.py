"""A store that remembers as long as the process lives: for tests, for trying things, for work that may be lost.

It is the reference for what each change means: `runs` and `tasks` say it in plain Python, `tables` keeps the rows, and
`store` hands out work.
"""

from derecho.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
