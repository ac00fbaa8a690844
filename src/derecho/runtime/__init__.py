"""Decisions: a run's code on a deterministic event loop, facts in, commands out.

`loop` is the event loop, `execution` one live run on it, `handles` and `channels` what its code awaits, `matching` the
comparison with history, `decider` commands turned into changes. Pure: no I/O, no clock, no randomness, no threads.
"""
