"""How fast Derecho is, measured: `make bench`, or `python -m benchmarks --help`.

`definitions` has the workflows, one module per kind of workload measures them, `child` runs one workload on one store
in a process of its own, `__main__` repeats that and `table` takes medians. Every workload asserts its results.
`floor` writes the same by a bare loop, `dbos_child` does the same with DBOS Transact, `server` has the PostgreSQL.
docs/performance.md says how to read the figures.
"""
