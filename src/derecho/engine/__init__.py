"""Work: the engine that runs workflows and activities on a store.

Four workers, each the same sentence with another object: claim or look, compute, commit, or let go. `engine` joins
them, `runs` and `turns` are the live runs and the thread of their code, `attempts` one try of an activity, `lease` what
makes a dead engine's work free again.
"""

from derecho.engine.engine import Engine

__all__ = ["Engine"]
