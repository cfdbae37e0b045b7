"""A worker's two log files: how much has been written, and rotation.

Owns descriptors 1 and 2 of this process. Rotation is the worker's own work and not the daemon's,
because only the process itself can put a new file under its descriptors: dup2 is atomic, so not a
byte is lost. Offsets count bytes since the log began, across rotation.
"""

from __future__ import annotations

import os


class OutputFiles:
    """The files behind standard output and standard error."""

    def __init__(self, out_path: str, err_path: str, max_bytes: int, backups: int) -> None:
        self._max_bytes = max_bytes
        self._backups = backups
        #: Descriptor -> path, and the bytes in files rotated away.
        self._paths = {1: out_path, 2: err_path}
        self._before = {1: 0, 2: 0}

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
            size = os.fstat(fd).st_size
            if path and size >= self._max_bytes:
                self._rotate(fd, path, size)

    def _rotate(self, fd: int, path: str, size: int) -> None:
        try:
            if self._backups == 0:
                os.unlink(path)
            for number in range(self._backups, 0, -1):
                source = path if number == 1 else f"{path}.{number - 1}"
                if os.path.exists(source):
                    os.replace(source, f"{path}.{number}")
            fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return
        os.dup2(fresh, fd)
        os.close(fresh)
        self._before[fd] += size
