"""Being woken when a file is written to, instead of looking at it again and again: inotify, where there is one (Linux).

An alarm rings once and must then be armed again, so whoever writes a lot pays for it once.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Callable

_MODIFY, _ONCE = 0x2, 0x80000000


class Alarm:
    """Calls `ring`, in a thread of its own, at the first write to a file after `arm`."""

    def __init__(self, path: str, ring: Callable[[], None]) -> None:
        self._path = os.fsencode(path)
        self._ring = ring
        self._file: int | None = None

    def arm(self) -> bool:
        """Ring at the next write; False when the system cannot tell, or the file is not there."""
        if sys.platform != "linux":
            return False
        libc = ctypes.CDLL(None)
        if self._file is None:
            self._file = libc.inotify_init1(os.O_CLOEXEC)
            threading.Thread(target=self._wait, args=(self._file,), name="derecho-sqlite-alarm", daemon=True).start()
        return bool(libc.inotify_add_watch(self._file, self._path, ctypes.c_uint32(_MODIFY | _ONCE)) >= 0)

    def _wait(self, file: int) -> None:
        try:
            while os.read(file, 4096) and self._file == file:  # raises at once when there was no room for one more
                self._ring()
        except OSError:
            return
        os.close(file)

    def close(self) -> None:
        """Never ring again."""
        file, self._file = self._file, None
        if file is not None:
            libc = ctypes.CDLL(None)  # the end of a watch is told, too: it wakes the thread
            libc.inotify_rm_watch(file, libc.inotify_add_watch(file, b"/", ctypes.c_uint32(_MODIFY)))
