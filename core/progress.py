"""What a worker began last and what that is called, in a file that it shares with its node daemon.

Owns the layout, the writing (into mapped memory: no system call) and the reading. A message for
each call would cost more than the call, and one that has to wait while C code holds the interpreter
comes too late. The name and the rest are written one after the other: a reader in between sees the
name of one task with the number of the other, for a microsecond.

Of the last names all are kept: who has read a line of the log finds here whose it is, though a
message that says so may still be on its way.
"""

from __future__ import annotations

import os
import struct
from typing import Any, Final

import msgspec

#: What a worker writes into its progress file before its first task.
NO_TASK_YET: Final = -1
#: Of the task begun last: its number, when (ns of the monotonic clock), its id, its attempt.
_BEGUN: Final = struct.Struct("<qq24sq")
#: How many titles there were.
_COUNT: Final = struct.Struct("<q")
#: From which bytes of standard output and error on lines are its, whether it may be run again when
#: its worker dies, how many bytes its name has.
_TITLE: Final = struct.Struct("<qq?B")
_NAME_BYTES_MAX: Final = 200
_SLOT_BYTES: Final = _TITLE.size + _NAME_BYTES_MAX
_SLOTS: Final = 16
_SLOTS_BEGIN: Final = _BEGUN.size + _COUNT.size
#: Less than a page.
FILE_BYTES: Final = _SLOTS_BEGIN + _SLOTS * _SLOT_BYTES

#: ``write_begun(memory, 0, number, begun_ns, task_id, attempt)``
write_begun: Final = _BEGUN.pack_into


class Begun(msgspec.Struct, frozen=True):
    """The last task a worker began. ``at``: monotonic seconds."""

    at: float
    task_id: bytes
    attempt: int


class Title(msgspec.Struct, frozen=True):
    """What a worker runs, or ran last: "" if nothing yet. A long name is cut.

    Lines of its log from these offsets on (bytes since the log began, across rotation) are shown
    under this name; -1: under the name of before.
    """

    name: str = ""
    retriable: bool = False
    out_offset: int = -1
    err_offset: int = -1


class Progress(msgspec.Struct, frozen=True):
    """What the file says. ``begun`` None: no task yet. ``titles``: the last ones, in order, of
    ``count``."""

    begun: Begun | None = None
    titles: tuple[Title, ...] = ()
    count: int = 0

    @property
    def title(self) -> Title:
        """The present one."""
        return self.titles[-1] if self.titles else Title()


def write_title(memory: Any, number: int, title: Title) -> None:
    """Say what runs from now on. ``memory``: the mapped file. ``number``: of the title, from 0; the
    same again puts it in the place of the former, which nobody needs any more."""
    name = title.name.encode("utf-8", "replace")[:_NAME_BYTES_MAX]
    begin = _SLOTS_BEGIN + number % _SLOTS * _SLOT_BYTES
    memory[begin + _TITLE.size : begin + _TITLE.size + len(name)] = name
    _TITLE.pack_into(
        memory, begin, title.out_offset, title.err_offset, title.retriable, len(name)
    )
    _COUNT.pack_into(memory, _BEGUN.size, number + 1)


def read_progress(path: str) -> Progress:
    """What a worker says; of one without a file, that it has said nothing."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES)
    except OSError:
        return Progress()
    begun, count = None, 0
    if len(data) >= _BEGUN.size:
        _, begun_ns, task_id, attempt = _BEGUN.unpack_from(data)
        begun = Begun(begun_ns / 1e9, task_id, attempt) if begun_ns > 0 else None
    if len(data) == FILE_BYTES:
        (count,) = _COUNT.unpack_from(data, _BEGUN.size)
    titles = tuple(_title(data, number) for number in range(max(0, count - _SLOTS), count))
    return Progress(begun, titles, count)


def _title(data: bytes, number: int) -> Title:
    begin = _SLOTS_BEGIN + number % _SLOTS * _SLOT_BYTES
    out_offset, err_offset, retriable, size = _TITLE.unpack_from(data, begin)
    begin += _TITLE.size
    name = data[begin : begin + size].decode("utf-8", "ignore")
    return Title(name, retriable, out_offset, err_offset)


class ProgressFile(msgspec.Struct, frozen=True):
    """The file as the node sees it, which makes and removes it.

    Beside the sockets, or the store: what it says is wanted only while the node lives.
    """

    path: str

    def create(self) -> None:
        """Make it, saying that no task was begun. All of it: a worker could not write into pages
        for which the disk has no room."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, _BEGUN.pack(NO_TASK_YET, 0, b"", 0).ljust(FILE_BYTES, b"\0"))
        finally:
            os.close(descriptor)

    def read(self) -> int:
        """The number of the last task that the worker began; NO_TASK_YET where it began none."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(8)
        except OSError:
            return NO_TASK_YET
        return int.from_bytes(data, "little", signed=True) if len(data) == 8 else NO_TASK_YET

    def take(self) -> int:
        """That number at last; removes the file."""
        number = self.read()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            return number
        return number
