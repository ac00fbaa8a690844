"""The engines of this machine: whose process has died is known at once, nobody has to wait for its lease.

An engine that was given no name is called after its host, its process, and the boot and process namespace in which that
number means something (Linux says which). Whoever is called otherwise is left to its lease.
"""

import hashlib
import os
import socket
from contextlib import suppress
from pathlib import Path


def _here() -> str:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        place = f"{boot.strip()} {os.readlink('/proc/self/ns/pid')}"
        return f"-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"
    return ""


def _name(process: int | str) -> str:
    return f"{socket.gethostname()}-{process}{_here()}"


def own_name() -> str:
    return _name(os.getpid())


def has_died(name: str) -> bool:
    """Whether this is the name of a process of this machine that is no more."""
    process = name.removeprefix(f"{socket.gethostname()}-").partition("-")[0]
    if not (_here() and process.isdecimal() and name == _name(process)):
        return False
    try:
        os.kill(int(process), 0)
    except OSError as exc:  # another one: it is somebody else's, and it lives
        return isinstance(exc, ProcessLookupError)
    return False
