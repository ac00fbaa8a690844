"""An interrupt that comes when the function of a thread has returned leaves nothing behind."""

import subprocess
import sys

SCRIPT = """
import contextvars, sys
from derecho.executors.threads import Call

call = Call(lambda: None, contextvars.copy_context())
call._enter()
call._told = True
call._leave()
sys.setprofile(lambda *_: None)
(lambda: None)()
sys.setprofile(None)
print("still running")
"""


def test_a_late_interrupt_does_not_stop_the_process_under_a_profiler() -> None:
    """CPython 3.11 looked for the withdrawn exception for ever, and under a profiler did nothing else."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout == "still running\n", ended.stderr
