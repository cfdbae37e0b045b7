"""A worker's two log files: how much has been written, and rotation.

Owns descriptors 1 and 2 of this process. Rotation is the worker's own work and not the daemon's,
because only the process itself can put a new file under its descriptors: dup2 is atomic, so not a
byte is lost. Offsets count bytes since the log began, across rotation.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class OutputFiles:
    """The files behind standard output and standard error."""

    def __init__(self, out_path: str, err_path: str, max_bytes: int, backups: int) -> None:
        self._max_bytes = max_bytes
        self.backups = backups
        #: Descriptor -> path, and the bytes in files rotated away.
        self._paths = {1: out_path, 2: err_path}
        self._before = {1: 0, 2: 0}
        #: Held while a file is replaced: offsets() of another thread needs it to be exact.
        self.lock = threading.Lock()
        #: Called when a file was replaced, in the thread of rotate().
        self.rotated: Callable[[], None] = lambda: None

    def begins(self) -> tuple[int, int]:
        """Where the present files of both begin, in bytes since the logs began."""
        return self._before[1], self._before[2]

    def offsets(self) -> tuple[int, int]:
        """Bytes written to standard output and standard error so far."""
        return (
            self._before[1] + os.fstat(1).st_size,
            self._before[2] + os.fstat(2).st_size,
        )

    def rotate(self) -> None:
        """Start new files where the present ones are full. A full disk leaves things as they are:
        writing on is better than stopping the work."""
        for fd, path in self._paths.items():
            if path and os.fstat(fd).st_size >= self._max_bytes:
                self._rotate(fd, path)

    def _rotate(self, fd: int, path: str) -> None:
        try:
            if self.backups == 0:
                os.unlink(path)
            for number in range(self.backups, 0, -1):
                source = path if number == 1 else f"{path}.{number - 1}"
                if os.path.exists(source):
                    os.replace(source, f"{path}.{number}")
            fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        full = os.dup(fd)
        with self.lock:
            os.dup2(fresh, fd)
            # Not before: others write meanwhile.
            self._before[fd] += os.fstat(full).st_size
        os.close(full)
        os.close(fresh)
        self.rotated()
