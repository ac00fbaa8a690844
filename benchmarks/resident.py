"""Keeps the memory of idle processes in place, where a host takes it from its virtual machines.

There the first touch of each page after some seconds of rest costs some 20 to 40 µs, which count as CPU time of who
touches it. So an idle process is charged for how much memory it goes through when it wakes, not for what it does. A
process of its own that reads a byte of each page, again and again, keeps them at hand, and is not counted.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.server import processes_of

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PAUSE = 0.2
"""Seconds between two readings; a page is not taken away so soon."""


@contextlib.contextmanager
def kept_in_place(postmaster: int | None) -> Iterator[bool]:
    """Keep the pages of this process and of a database's server; False where the system does not let us."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.resident", str(os.getpid()), str(postmaster or 0)],
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        try:
            yield reader.stdout.readline() == "all were read\n"
        finally:
            reader.kill()


def read_all(process: int) -> None:
    """Read a byte of each page that a process has in memory."""
    memory = Path("/proc") / str(process)
    with (
        (memory / "maps").open() as maps,
        (memory / "pagemap").open("rb", 0) as present,
        (memory / "mem").open("rb", 0) as pages,
    ):
        for line in maps:
            place, rights, *_ = line.split()
            first, end = (int(address, 16) // _PAGE for address in place.split("-"))
            if "r" not in rights or end * _PAGE > sys.maxsize or line.rstrip().endswith("[vvar]"):
                continue
            present.seek(first * 8)
            entries = present.read((end - first) * 8)
            for page, is_present in enumerate(entries[7::8], first):
                if is_present & 0x80:
                    with contextlib.suppress(OSError):  # it was given back meanwhile
                        pages.seek(page * _PAGE)
                        pages.read(1)


def main(process: str, postmaster: str) -> None:
    """Read until we are killed or the process is gone; say when all was read for the first time."""
    said = False
    while True:
        try:
            read_all(int(process))
            for server in processes_of(int(postmaster) or None):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a backend that has ended
                    read_all(server)
        except OSError as exc:
            sys.exit(f"the memory of idle processes cannot be kept in place: {exc}")
        if not said:
            print("all were read", flush=True)
            said = True
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])
