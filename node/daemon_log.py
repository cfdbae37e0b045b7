"""A daemon's own log: standard output as a file that rotates by size.

Covers: the format of a line, rotation, and a full disk (lines are dropped and counted, never an
error in the loop). Does not rotate the .err file, which holds only crashes. Its own handler and not
logging.handlers, because standard output itself has to follow the rotation, and because that
module costs every start 6 ms for sockets and queues.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Final

from mray.log_rotation import begin_log_file

_LETTERS: Final = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "C"}


class _Lines(logging.Formatter):
    """``[2026-01-31 12:00:00,123 I 4121] text``"""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        letter = _LETTERS.get(record.levelname, "I")
        text = f"[{clock},{int(record.msecs):03d} {letter} {os.getpid()}] {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class RotatingOutput(logging.Handler):
    """Writes lines to ``descriptor``, which is open on ``path`` for appending.

    At ``max_bytes`` the file becomes path.1, path.1 becomes path.2, up to ``backup_count``.
    """

    def __init__(self, path: str, max_bytes: int, backup_count: int, descriptor: int = 1) -> None:
        super().__init__()
        self.setFormatter(_Lines())
        self._path = path
        self._max_bytes = max_bytes
        self._backup_count = backup_count
        self._descriptor = descriptor
        self._dropped_count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, rotating first where the file is full."""
        data = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        if self._dropped_count:
            data = b"(%d lines dropped: disk full)\n" % self._dropped_count + data
        try:
            if os.fstat(self._descriptor).st_size + len(data) > self._max_bytes:
                self._rotate()
            os.write(self._descriptor, data)
            self._dropped_count = 0
        except OSError:
            # There is no place left to complain at; the next line that fits tells the count.
            self._dropped_count += 1

    def _rotate(self) -> None:
        try:
            fresh = begin_log_file(self._path, self._backup_count)
        except OSError:
            return  # The file gets longer than it should, and no line is lost.
        os.dup2(fresh, self._descriptor, inheritable=self._descriptor < 3)
        os.close(fresh)


def open_log(path: str, max_bytes: int, backup_count: int) -> None:
    """Send everything that is logged, from INFO on, to standard output, a file at ``path``."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers[:] = [RotatingOutput(path, max_bytes, backup_count)]
