"""Notes which bytes of this worker's log files each call printed; see mray.task_output.

Called by the executing thread between two calls, in a worker that runs one at a time. A call that
printed nothing costs two system calls that ask where the streams are, 0.2 us each; one that printed
costs one small write. The stream's position tells of its children's output too, which inherit it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from typing import Final

from mray.runtime.output import OutputFiles
from mray.task_output import BEGINNING, NOBODY, RECORD, RECORDS_MAX, SIDE_BY_SIDE, UNKNOWN

log = logging.getLogger("mray.worker")

_NO_TASK: Final = bytes(24)
_position = os.lseek


class Printed:
    """See the module. ``path``: of the index, which is made with the first record."""

    def __init__(self, output: OutputFiles, path: str, records_max: int = RECORDS_MAX) -> None:
        self._output = output
        self._path = path
        self._records_max = records_max
        #: Of all below: rotation is the loop's thread's.
        self._lock = threading.Lock()
        self._fd = -1
        self._count = 0
        #: Whether older records than those of the two files are gone.
        self._dropped = 0
        #: Positions in the present files at the last look, and bytes written until then.
        self._out = self._err = -1
        self._seen = (0, 0)
        #: Where what could not be written down begins.
        self._lost: tuple[int, int] | None = None
        #: Called where there is output since the last look; by the executing thread.
        self.on_output: Callable[[], None] = lambda: None
        output.rotated = self._rotated

    def skip(self) -> None:
        """A call begins after a pause: what came since the last one is nobody's."""
        if _position(1, 0, 1) != self._out or _position(2, 0, 1) != self._err:
            self._note(_NO_TASK, NOBODY, False)

    def ended(self, task_id: bytes, attempt: int, failed: bool) -> None:
        """A call has ended, and its output is flushed."""
        if failed or _position(1, 0, 1) != self._out or _position(2, 0, 1) != self._err:
            self._note(task_id, attempt, failed)

    def give_up(self) -> None:
        """From here on calls run side by side."""
        self._note(_NO_TASK, SIDE_BY_SIDE, True)

    def _note(self, task_id: bytes, kind: int, always: bool) -> None:
        with self._lock:
            before = self._seen
            with self._output.lock:
                self._out, self._err = _position(1, 0, 1), _position(2, 0, 1)
                now = self._seen = self._output.offsets()
            if now != before:
                self.on_output()
            elif not always:
                return
            try:
                if self._lost is not None:
                    self._write(_NO_TASK, UNKNOWN, self._lost, before)
                    self._lost = None
                self._write(task_id, kind, before, now)
            except OSError as error:
                if self._lost is None:
                    log.warning("which call printed what is not written down: %s", error)
                    self._lost = before

    def _rotated(self) -> None:
        with self._lock:
            try:
                self._write(_NO_TASK, BEGINNING, self._output.begins(), (self._dropped,) * 2)
            except OSError as error:
                log.warning("where %s begins anew is not written down: %s", self._path, error)

    def _write(self, task: bytes, kind: int, begin: tuple[int, int], end: tuple[int, int]) -> None:
        if self._fd < 0 or self._count >= self._records_max:
            self._begin_file()
        data = RECORD.pack(task, kind, begin[0], end[0], begin[1], end[1])
        # By position: what a full disk took in part is written over.
        if os.pwrite(self._fd, data, self._count * RECORD.size) != RECORD.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._count += 1

    def _begin_file(self) -> None:
        """The first file, or one more: of two, the older goes."""
        if self._fd >= 0:
            older = f"{self._path}.1"
            self._dropped |= int(not self._output.backups or os.path.exists(older))
            os.replace(self._path, older)
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._count = 0
        begins = self._output.begins()
        if self._dropped or any(begins):
            self._write(_NO_TASK, BEGINNING, begins, (self._dropped,) * 2)
