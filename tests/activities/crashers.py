"""Activities for child processes, which find them here by module and name."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import derecho


@derecho.activity(run_in="process")
def add(left: int, right: int) -> int:
    return left + right


@derecho.activity(run_in="process")
def segfault() -> None:
    ctypes.string_at(0)


@derecho.activity(run_in="process")
def spin(pid_file: str) -> None:
    """Native code that keeps the interpreter, so that only a kill ends it; tells its process id."""
    Path(pid_file).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)


@derecho.activity(run_in="process", retry=derecho.RetryPolicy.none())
def die_beside_a_helper(pid_file: str) -> None:
    """What it started lives on, as what a pool of its own leaves behind."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    Path(pid_file).write_text(str(pid))
    os.kill(os.getpid(), signal.SIGKILL)


@derecho.activity(run_in="process")
def leave(code: int) -> None:
    os._exit(code)


@derecho.activity(run_in="process")
def give_up() -> None:
    sys.exit("no more")


@derecho.activity(run_in="process")
def process_id() -> int:
    return os.getpid()


@derecho.activity(run_in="process", retry=derecho.RetryPolicy(initial_interval=0, retry_on=(derecho.ProcessDied,)))
def resume() -> list[int | None]:
    """Dies in its first attempt, after a heartbeat; tells what the second one found."""
    act = derecho.current_activity()
    found = act.last_heartbeat(int)
    for count in range(5):
        act.heartbeat(count)
    if act.attempt == 1:
        time.sleep(0.05)  # the frame leaves; what a process does in its last moment is lost with it
        os.kill(os.getpid(), signal.SIGKILL)
    return [found, act.last_heartbeat(int)]


class Declined(Exception):
    """An error of the author's, with an attribute."""

    def __init__(self, code: int) -> None:
        super().__init__(f"declined: {code}")
        self.code = code


@derecho.activity(run_in="process", retry=derecho.RetryPolicy(retry_if=lambda error: not isinstance(error, Declined)))
def decline() -> None:
    error = Declined(51)
    error.add_note("the card of Ann")
    raise error


@derecho.activity(run_in="process")
def large(size: int) -> str:
    return "x" * size


@derecho.activity(run_in="process")
def look_around() -> list[str]:
    act = derecho.current_activity()
    told = [act.name, str(act.attempt), act.idempotency_key]
    for ask in (lambda: act.resource(int), lambda: act.client):
        try:
            ask()
        except derecho.DerechoError as exc:
            told.append(str(exc))
    return told


def pid_in(pid_file: Path) -> int:
    """The process id in a file, 0 as long as there is none."""
    return int(pid_file.read_text() or 0) if pid_file.exists() else 0


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
