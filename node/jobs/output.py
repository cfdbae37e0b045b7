"""What a job prints, from its pipe into its log: all of it, in order, rotated by size.

A thread of its own, because a pipe that is not read stops the job. Rotation is by renaming, as for
every log here; a file that fills the disk is reported once in the log itself and the output is
thrown away until there is room again, for a job must not hang on its log.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Final

from mray.log_rotation import begin_log_file, open_log_file

_READ_BYTES: Final = 256 * 1024


class OutputCopier:
    """Copies ``pipe_fd`` (which it closes) to ``path``; calls ``on_end`` in its thread at the end.

    The end is the pipe's, or what ``stop()`` says: where another process keeps the pipe open.
    """

    def __init__(
        self,
        pipe_fd: int,
        path: str,
        max_bytes: int,
        backup_count: int,
        on_end: Callable[[], None],
    ) -> None:
        self._pipe_fd = pipe_fd
        self._path = path
        self._max_bytes = max_bytes
        self._backup_count = backup_count
        self._on_end = on_end
        self._lost_bytes = 0
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._file_fd = open_log_file(path)
        self._size = os.fstat(self._file_fd).st_size
        os.set_blocking(pipe_fd, False)
        self._thread = threading.Thread(target=self._run, name=f"log-{path[-20:]}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Take what is in the pipe now, and end."""
        os.eventfd_write(self._stop_fd, 1)

    def join(self) -> None:
        """Wait for the end, and let go of everything."""
        self._thread.join()
        os.close(self._stop_fd)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._pipe_fd, select.POLLIN)
        poller.register(self._stop_fd, select.POLLIN)
        stopping = False
        try:
            while True:
                try:
                    data = os.read(self._pipe_fd, _READ_BYTES)
                except BlockingIOError:
                    if stopping:
                        return
                    stopping = self._stop_fd in {fd for fd, _ in poller.poll()}
                    continue
                if not data:
                    return
                self._write(data)
        finally:
            os.close(self._pipe_fd)
            os.close(self._file_fd)
            self._on_end()

    def _write(self, data: bytes) -> None:
        """Write all of it, a part of a line at the end of one file only where lines are huge."""
        while data:
            room = self._max_bytes - self._size
            if len(data) <= room:
                self._append(data)
                return
            cut = data.rfind(b"\n", 0, max(room, 0)) + 1
            if cut == 0 and self._size == 0:
                cut = room
            if cut:
                self._append(data[:cut])
                data = data[cut:]
            self._rotate()

    def _append(self, data: bytes) -> None:
        try:
            if self._lost_bytes:
                note = b"\n[mray: %d bytes of output lost: no room on the disk]\n"
                self._size += os.write(self._file_fd, note % self._lost_bytes)
                self._lost_bytes = 0
            while data:
                written = os.write(self._file_fd, data)
                self._size += written
                data = data[written:]
        except OSError:
            self._lost_bytes += len(data)

    def _rotate(self) -> None:
        try:
            fresh = begin_log_file(self._path, self._backup_count)
        except OSError:
            self._size = 0  # Not now: the file gets longer than it should, and nothing is lost.
            return
        os.close(self._file_fd)
        self._file_fd = fresh
        self._size = 0
