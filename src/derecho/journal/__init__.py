"""Facts: what is recorded, how it is written down, and what a store must promise.

Read in this order: `events` (what can happen), `payloads` and `failures` (values and errors as data), `wire` (bytes on
disk and the digest chain), `model` (rows), `changes` (what a commit can do), `store` (who keeps it). Everything here is
pure: no I/O, no clock, no randomness.
"""
