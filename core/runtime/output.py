"""A worker's two log files: what is written, how much, rotation, and a disk without room.

Owns descriptors 1 and 2 of this process and Python's streams over them. Rotation is the worker's
own work and not the daemon's, because only the process itself can put a new file under its
descriptors: dup2 is atomic, so not a byte is lost. Offsets count bytes since the log began, across
rotation.

A full disk ends no task: what Python's streams cannot write is thrown away and counted, and the
log says how much is missing where it goes on. What writes to the descriptors by itself (C code,
children) gets the system's error, as with any file.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from mray.log_rotation import begin_log_file

#: The disk is full, the user's share of it, or the file may not grow.
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: A disk may have room and none in turns: who watches hears of it so often at most.
_TELL_EVERY_S: Final = 1.0


class LossyFile(io.FileIO):
    """A log file to write to: what there is no room for is lost, by whole lines if possible."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        #: Since the beginning.
        self.lost_lines = 0
        self.lost_bytes = 0
        #: Why the last write failed; "" where it did not.
        self.trouble = ""
        #: Called when writing begins to fail, and when there is room again. By any thread, inside
        #: print: it must not print, block or raise.
        self.on_change: Callable[[], None] = lambda: None
        #: Lost since something was written last: told in the log where it goes on.
        self._gap_lines = 0
        self._gap_bytes = 0
        #: What was lost last was no whole line: its rest is lost as well.
        self._torn = False
        self._line_begun = False

    def write(self, data: Any) -> int:  # Any: what has a buffer, which 3.11 has no type for
        """How much was taken: as a file does, and all where there is no room for it."""
        if not self._gap_bytes:
            try:
                count = super().write(data)
            except OSError as error:
                self._refused(error, bytes(data))
                return len(data)
            if count:
                self._line_begun = data[count - 1] != 10
            return count
        return self._go_on(bytes(data))

    def _go_on(self, data: bytes) -> int:
        skipped = data.find(b"\n") + 1 or len(data) if self._torn else 0
        rest = data[skipped:]
        if skipped:
            self._lose(data[:skipped])
        if not rest:
            return len(data)
        note = b"[mray] %d lines (%d bytes) are missing here: there was no room for them\n" % (
            self._gap_lines, self._gap_bytes,
        )  # fmt: skip
        if self._line_begun:
            note = b"\n" + note
        try:
            count = super().write(note + rest) - len(note)
        except OSError as error:
            self._refused(error, rest)
            return len(data)
        if count < 0:
            # Not even the note: what there is of it ends no line.
            self._line_begun = True
            self._lose(rest)
            return len(data)
        self._gap_lines = self._gap_bytes = 0
        self._line_begun = bool(count) and rest[count - 1] != 10
        self.trouble = ""
        self.on_change()
        return skipped + count

    def _refused(self, error: OSError, data: bytes) -> None:
        if error.errno not in _NO_ROOM:
            raise error
        self._lose(data)
        if not self.trouble:
            self.trouble = str(error)
            self.on_change()

    def _lose(self, data: bytes) -> None:
        self._torn = not data.endswith(b"\n")
        lines = data.count(b"\n")
        self.lost_lines += lines
        self.lost_bytes += len(data)
        self._gap_lines += lines
        self._gap_bytes += len(data)


def open_streams() -> tuple[LossyFile, LossyFile]:
    """Make ``sys.stdout`` and ``sys.stderr`` anew, over descriptors 1 and 2, for a worker: each
    line leaves when it is complete. The files under them."""
    out, err = LossyFile(1), LossyFile(2)
    for name, file in (("stdout", out), ("stderr", err)):
        former = getattr(sys, name)
        former.flush()
        stream = io.TextIOWrapper(
            io.BufferedWriter(file),
            encoding=former.encoding,
            errors=former.errors,
            line_buffering=True,
            write_through=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    return out, err


class OutputFiles:
    """The files behind standard output and standard error."""

    def __init__(
        self,
        out_path: str,
        err_path: str,
        max_bytes: int,
        backups: int,
        files: tuple[LossyFile, ...] = (),
    ) -> None:
        self._max_bytes = max_bytes
        self.backups = backups
        self._files = files
        #: Descriptor -> path, and the bytes in files rotated away.
        self._paths = {1: out_path, 2: err_path}
        self._before = {1: 0, 2: 0}
        #: Held while a file is replaced: offsets() of another thread needs it to be exact.
        self.lock = threading.Lock()
        #: Called when a file was replaced, in the thread of rotate().
        self.rotated: Callable[[], None] = lambda: None
        self._on_change: Callable[[], None] = lambda: None
        self._told_at = float("-inf")
        #: What was told last.
        self._told: tuple[int, int, str] = (0, 0, "")
        self._untold = False

    def begins(self) -> tuple[int, int]:
        """Where the present files of both begin, in bytes since the logs began."""
        return self._before[1], self._before[2]

    def offsets(self) -> tuple[int, int]:
        """Bytes written to standard output and standard error so far."""
        return (
            self._before[1] + os.fstat(1).st_size,
            self._before[2] + os.fstat(2).st_size,
        )

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call when a stream begins to lose what is printed, and when it writes again: once a
        second at most, else with rotate(), as what is lost meanwhile. See LossyFile.on_change; a
        loss before is told now."""
        self._on_change = on_change
        for file in self._files:
            file.on_change = self._changed
        if self.lost()[1]:
            self._changed()

    def _changed(self) -> None:
        now = time.monotonic()
        if now - self._told_at < _TELL_EVERY_S:
            self._untold = True
            return
        self._told_at = now
        self._told = self.lost()
        self._untold = False
        self._on_change()

    def lost(self) -> tuple[int, int, str]:
        """Lines and bytes that there was no room for, in all; why there is none, "" if there is."""
        trouble = next((file.trouble for file in self._files if file.trouble), "")
        return (
            sum(file.lost_lines for file in self._files),
            sum(file.lost_bytes for file in self._files),
            trouble,
        )

    def rotate(self) -> None:
        """Start new files where the present ones are full. A full disk leaves things as they are:
        writing on is better than stopping the work."""
        if self._untold or self.lost() != self._told:
            self._changed()
        for fd, path in self._paths.items():
            if path and os.fstat(fd).st_size >= self._max_bytes:
                self._rotate(fd, path)

    def _rotate(self, fd: int, path: str) -> None:
        full = -1
        try:
            full = os.dup(fd)
            fresh = begin_log_file(path, self.backups)
        except OSError:
            if full >= 0:
                os.close(full)
            return
        with self.lock:
            os.dup2(fresh, fd)
            # Not before: others write meanwhile.
            self._before[fd] += os.fstat(full).st_size
        os.close(full)
        os.close(fresh)
        self.rotated()
