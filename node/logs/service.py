"""Answers ListLogs and ReadLog: the log files of this node, for `mray logs` and job output.

Names are plain names of files in the log directory. A ReadLog that may wait is held until its file
changes. The log of a running job is not at its end before the job has exited and all is written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Final

from mray.node.logs.files import LogBook, offset_of_last_lines, read
from mray.rpc.pump import Pump, Timer
from mray.task_output import INDEX_END
from mray.wire.messages import ListLogs, LogChunk, LogFile, LogFiles, Message, ReadLog, Refused

_CHUNK_BYTES_MAX: Final = 4 * 1024 * 1024
_WAIT_S_MAX: Final = 3600.0
_ROTATED: Final = re.compile(r"\.[0-9]+$")


class _Held:
    """A ReadLog that waits for something new."""

    __slots__ = ("message", "offset", "sender", "timer")

    def __init__(self, sender: bytes, message: ReadLog, offset: int) -> None:
        self.sender = sender
        self.message = message
        self.offset = offset
        self.timer: Timer | None = None


class LogService:
    """``is_open(name)``: whether the log's writer is a job that has not ended with all written."""

    def __init__(
        self,
        pump: Pump,
        book: LogBook,
        is_open: Callable[[str], bool],
        send: Callable[[bytes, Message], bool],
    ) -> None:
        self._pump = pump
        self._book = book
        self._is_open = is_open
        self._send = send
        self._held: dict[str, list[_Held]] = {}

    def list_logs(self, sender: bytes, message: ListLogs) -> None:
        """Answered by LogFiles, sorted by name. What tells whose lines are whose is no log, and is
        told to those who ask for it."""
        files = []
        indexes = INDEX_END in message.pattern
        with os.scandir(self._book.directory) as entries:
            for entry in entries:
                if not fnmatchcase(entry.name, message.pattern):
                    continue
                if INDEX_END in entry.name and not indexes:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # Rotated away meanwhile.
                if stat.S_ISREG(status.st_mode):
                    files.append(LogFile(entry.name, status.st_size, status.st_mtime))
        files.sort(key=lambda file: file.name)
        self._send(sender, LogFiles(message.rid, files))

    def read_log(self, sender: bytes, message: ReadLog) -> None:
        """Answered by LogChunk, or Refused (ValueError, FileNotFoundError)."""
        name = message.name
        if not _is_plain(name):
            text = f"{name!r} is not the name of a file in the log directory"
            self._send(sender, Refused(message.rid, "ValueError", text))
            return
        parts = self._book.parts(name)
        offset = message.offset
        if offset < 0:
            offset = offset_of_last_lines(parts, -offset)
        held = _Held(sender, message, offset)
        wait_s = min(message.wait_s, _WAIT_S_MAX)
        if wait_s > 0 and not self._has_news(held):
            held.timer = self._pump.after(wait_s, lambda: self._time_is_over(held))
            self._held.setdefault(name, []).append(held)
        else:
            self._answer(held)

    def changed(self, names: Iterable[str] | None) -> None:
        """These files have changed (None: any may have): look at who waits for them."""
        if not self._held:
            return
        for name in list(self._held) if names is None else {_ROTATED.sub("", n) for n in names}:
            for held in list(self._held.get(name, ())):
                if self._has_news(held):
                    self._release(held)

    def _has_news(self, held: _Held) -> bool:
        """Whether there is something to say at once: bytes, or the end of a job's log."""
        name = held.message.name
        parts = self._book.parts(name)
        if parts and (parts[-1].end > held.offset or held.offset < parts[0].base):
            return True
        return bool(parts) and _is_job_log(name) and not self._is_open(name)

    def _time_is_over(self, held: _Held) -> None:
        held.timer = None
        self._release(held)

    def _release(self, held: _Held) -> None:
        waiting = self._held[held.message.name]
        waiting.remove(held)
        if not waiting:
            del self._held[held.message.name]
        if held.timer is not None:
            held.timer.cancel()
        self._answer(held)

    def _answer(self, held: _Held) -> None:
        message, offset = held.message, held.offset
        # Asked first: what is written after that is not part of this answer's "all".
        is_open = self._is_open(message.name)
        parts = self._book.parts(message.name)
        if not parts:
            text = f"there is no log {message.name} in {self._book.directory}"
            self._send(held.sender, Refused(message.rid, "FileNotFoundError", text))
            return
        skipped = max(0, parts[0].base - offset)
        offset = min(offset + skipped, parts[-1].end)
        data = read(parts, offset, max(1, min(message.max_bytes, _CHUNK_BYTES_MAX)))
        reached = offset + len(data)
        at_end = reached >= parts[-1].end and not is_open
        self._send(held.sender, LogChunk(message.rid, data, reached, at_end, skipped))


def _is_plain(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not set(name) & {"/", "\0"}


def _is_job_log(name: str) -> bool:
    return name.startswith("job-driver-")
