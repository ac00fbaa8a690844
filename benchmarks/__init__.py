"""How fast Derecho is, measured: `make bench`, or `python -m benchmarks --help`.

`definitions` has the workflows, one module per kind of workload measures them, `child` runs one workload on one store
in a process of its own, `__main__` repeats that, takes medians and prints the table. Every workload asserts its
results. docs/performance.md says how to read the figures.
"""
