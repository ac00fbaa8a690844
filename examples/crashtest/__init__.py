"""The parts of `demo.py`: kill the worker while orders are in flight, then prove from outside that nothing went wrong.

orders      reads the orders file
oracle      what must become of an order, computed from the file alone
children    the processes that the demo starts, and ends
drive       sends orders and approvals, kills workers
evidence    what is left behind: outcomes, histories, the shop's books
proofs      pure functions from the evidence to a verdict
timeline    one order's life as text
screen      a live terminal, or plain lines
"""
