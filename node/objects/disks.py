"""Where spilled objects are written: directories of this machine, and what a disk has to offer.

Owns the files of one disk and whether it has room. URLs are remote.py's. Does not know objects
(files.py) or threads (spill_pool.py), in which all of this runs. A storage raises OSError, or
NoRoom where the disk is too full to take more; a write that fails leaves nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Protocol

from mray.node.objects.directory import (
    OVERFLOW_NAME,
    SPILL_SUFFIX,
    ArenaError,
    clean_stale,
    directory_name,
    lock_new,
    remove,
)
from mray.node.objects.holes import punch_hole
from mray.units import MIB, TIB, format_bytes

_OVERFLOW_BYTES_MIN = TIB
_REMOVE_ATTEMPTS = 5

#: (where in the file, bytes) in ascending order.
Pieces = Iterable[tuple[int, memoryview]]


class NoRoom(OSError):
    """A disk is too full to take more. The text gives the numbers."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ENOSPC, text)

    def __str__(self) -> str:
        return str(self.strerror)


class Storage(Protocol):
    """One disk. All but ``path`` may block, and may be called from several threads at once."""

    path: str

    def write(self, number: int, size: int, pieces: Pieces) -> None:
        """Make the file ``number`` of ``size`` bytes."""

    def read(self, number: int, at: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from a file. FileNotFoundError, or EOFError where it is too short."""

    def delete(self, number: int) -> None:
        """Remove a file; no harm where there is none."""

    def punch(self, number: int, at: int, size: int) -> None:
        """Give a part of a file back, where that is possible."""

    def close(self) -> None:
        """Remove everything."""


def room_failure(path: str, fd_or_path: int | str, size: int, threshold: float) -> str:
    """Why the disk of ``path`` shall not take ``size`` bytes more; "" where it may."""
    figures = os.statvfs(fd_or_path)
    total = figures.f_blocks * figures.f_frsize
    free = figures.f_bavail * figures.f_frsize
    if total <= 0 or total - free + size <= threshold * total:
        return ""
    return (
        f"the disk of {path} would be over {threshold:.0%} full (local_fs_capacity_threshold) with "
        f"{format_bytes(size)} more: {format_bytes(free)} of {format_bytes(total)} are free"
    )


class LocalDisk:
    """A directory of this machine, under the lock protocol of directory.py.

    Raises ArenaError where it cannot be made. ``threshold``: share of the file system above which
    nothing is written.
    """

    def __init__(self, base: str, session: str, node: str, threshold: float) -> None:
        try:
            os.makedirs(base, mode=0o700, exist_ok=True)
            clean_stale(base)
        except OSError as error:
            raise ArenaError(
                f"objects cannot be spilled to {base}: {error.strerror}. Set another "
                "object_spilling_directory"
            ) from error
        self.path = os.path.join(base, directory_name(session, node))
        self.threshold = threshold
        self._lock_fd = lock_new(self.path)
        self._closed = False

    def make_overflow(self, capacity_bytes: int) -> tuple[str, int]:
        """Make the overflow file: its path and length. ArenaError where it cannot be."""
        path = os.path.join(self.path, OVERFLOW_NAME)
        length = max(_OVERFLOW_BYTES_MIN, min(16 * capacity_bytes, 8 * TIB))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    os.ftruncate(fd, length)
                    return path, length
                except OSError as error:
                    if error.errno != errno.EFBIG or length < MIB:
                        raise ArenaError(f"cannot make {path}: {error.strerror}") from error
                    length //= 4
        finally:
            os.close(fd)

    def room_failure(self, size: int) -> str:
        """Why nothing of ``size`` bytes shall be written here; "" where it may."""
        return room_failure(self.path, self.path, size, self.threshold)

    def write(self, number: int, size: int, pieces: Pieces) -> None:
        """See Storage."""
        wrong = self.room_failure(size)
        if wrong:
            raise NoRoom(wrong)
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "the store is closing")
        name = self._name(number)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for at, piece in pieces:
                _write_all(fd, at, piece)
        except BaseException:
            os.unlink(name)
            raise
        finally:
            os.close(fd)

    def read(self, number: int, at: int, buffer: memoryview) -> None:
        """See Storage."""
        fd = os.open(self._name(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = 0
            while done < len(buffer):
                got = os.preadv(fd, [buffer[done:]], at + done)
                if not got:
                    raise EOFError(f"{self._name(number)} ends at {at + done}")
                done += got
        finally:
            os.close(fd)

    def delete(self, number: int) -> None:
        """See Storage."""
        try:
            os.unlink(self._name(number))
        except FileNotFoundError:
            return

    def punch(self, number: int, at: int, size: int) -> None:
        """See Storage."""
        try:
            fd = os.open(self._name(number), os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # Deleted by another thread, which was told to later.
        try:
            punch_hole(fd, at, size)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
        finally:
            os.close(fd)

    def close(self) -> None:
        """See Storage."""
        if self._closed:
            return
        self._closed = True
        for _ in range(_REMOVE_ATTEMPTS):
            try:
                remove(self.path)
            except OSError as error:
                # A thread was about to make a file when we looked.
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                break
        os.close(self._lock_fd)

    def _name(self, number: int) -> str:
        return f"{self.path}/{number}{SPILL_SUFFIX}"


def _write_all(fd: int, at: int, piece: memoryview) -> None:
    done = 0
    while done < len(piece):
        done += os.pwrite(fd, piece[done:], at + done)
