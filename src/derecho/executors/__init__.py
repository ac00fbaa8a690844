"""Where the code of activities runs when it is not on the engine's loop: threads, child processes that can be killed.

A leaf: it knows nothing of runs, stores or the engine.
"""
