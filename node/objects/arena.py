"""The arena: one sparse file in shared memory.

Owns the file <base>/mray-<uid>-<session>-<node>/arena: making it, punching holes, taking it away.
Does not know what lies where (allocator.py) nor whose directories are stale (directory.py).

Memory is claimed by writers with posix_fallocate, so that a full file system is an error and not
SIGBUS: on a 1 MiB tmpfs, ftruncate and a touch of the second MiB kill the process.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

from mray.node.objects.allocator import ADDRESS_MULTIPLE
from mray.node.objects.directory import (
    ARENA_NAME,
    ArenaError,
    clean_stale,
    directory_name,
    lock_new,
    remove,
)
from mray.node.objects.holes import punch_hole
from mray.node.objects.ranges import Range
from mray.units import MIB, TIB, format_bytes

__all__ = ["Arena", "ArenaError", "check_room", "clean_stale", "default_capacity", "free_bytes"]

DEFAULT_BASE = "/dev/shm"
#: What every offset and length in an arena is a multiple of, so that any range can be mapped.
PAGE_BYTES = mmap.ALLOCATIONGRANULARITY

#: File systems and address spaces end somewhere (ext4: 16 TiB a file, x86: 128 TiB mapped).
_VIRTUAL_BYTES_MAX = 8 * TIB


class Arena:
    """An open arena. ``make`` one; ``close`` takes it away."""

    def __init__(
        self, directory: str, fd: int, lock_fd: int, capacity_bytes: int, virtual_bytes: int
    ) -> None:
        self.directory = directory
        #: What clients open and map.
        self.path = os.path.join(directory, ARENA_NAME)
        #: The most that objects may take together.
        self.capacity_bytes = capacity_bytes
        #: The length of the file, most of it never backed by memory.
        self.virtual_bytes = virtual_bytes
        self._fd = fd
        self._lock_fd = lock_fd

    @classmethod
    def make(cls, session: str, node: str, capacity_bytes: int, base: str = DEFAULT_BASE) -> Arena:
        """Make the arena of a node: ``session`` is the session's name, ``node`` the node id in hex.

        ``capacity_bytes`` is rounded down to pages. Raises ArenaError: not enough room in ``base``,
        no such directory, a file system without holes, or a live daemon of the same name.
        """
        capacity_bytes -= capacity_bytes % PAGE_BYTES
        check_room(base, capacity_bytes)
        directory = os.path.join(base, directory_name(session, node))
        lock_fd = lock_new(directory)
        fd = -1
        virtual_bytes = max(
            capacity_bytes, min(capacity_bytes * ADDRESS_MULTIPLE, _VIRTUAL_BYTES_MAX)
        )
        try:
            path = os.path.join(directory, ARENA_NAME)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.ftruncate(fd, virtual_bytes)
            os.posix_fallocate(fd, 0, PAGE_BYTES)
            punch_hole(fd, 0, PAGE_BYTES)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            remove(directory)
            os.close(lock_fd)
            raise ArenaError(
                f"the object store cannot be made in {base}: {error.strerror}. Its file needs a "
                "file system with sparse files and holes (tmpfs, ext4, xfs)"
            ) from error
        return cls(directory, fd, lock_fd, capacity_bytes, virtual_bytes)

    def punch(self, ranges: Iterable[Range]) -> None:
        """Give the pages of ``ranges`` back to the system; they read as zeros from now on.

        Takes 4-5 ms for 32 MiB: callers keep it to that. Raises OSError.
        """
        for start, length in ranges:
            punch_hole(self._fd, start, length)

    def resident_bytes(self) -> int:
        """How much memory the file holds."""
        return os.fstat(self._fd).st_blocks * 512

    def close(self) -> None:
        """Take the files away and let go of the lock. What clients still map lives on."""
        if self._fd < 0:
            return
        remove(self.directory)
        os.close(self._fd)
        os.close(self._lock_fd)
        self._fd = self._lock_fd = -1


def default_capacity(
    limit_bytes: int,
    shm_free: int,
    *,
    proportion: float = 0.3,
    capacity_bytes_max: int = 200 * 10**9,
) -> int:
    """The capacity of a store nobody chose a size for, in bytes.

    ``proportion`` of the node's memory limit, but never more than 90 % of what is free in the
    shared-memory file system (a container gives 64 MiB) nor than ``capacity_bytes_max``.
    """
    wanted = min(int(limit_bytes * proportion), shm_free * 9 // 10, capacity_bytes_max)
    return wanted - wanted % PAGE_BYTES


def free_bytes(base: str = DEFAULT_BASE) -> int:
    """What is free in the file system of ``base``. Raises ArenaError if there is no such place."""
    try:
        figures = os.statvfs(base)
    except OSError as error:
        raise ArenaError(f"the object store cannot use {base}: {error.strerror}") from error
    return figures.f_bavail * figures.f_frsize


def check_room(base: str, capacity_bytes: int) -> None:
    """Raise ArenaError unless ``base`` has room for a store of ``capacity_bytes``."""
    free = free_bytes(base)
    if capacity_bytes < PAGE_BYTES:
        raise ArenaError(
            f"an object store of {capacity_bytes} bytes holds nothing ({base} has "
            f"{format_bytes(free)} free): set object_store_memory to 75 MiB or more"
        )
    if capacity_bytes > free:
        fits = format_bytes(max(0, free * 9 // 10) // MIB * MIB, exact=True)
        raise ArenaError(
            f"an object store of {format_bytes(capacity_bytes)} does not fit in {base}, which has "
            f"{format_bytes(free)} free: set object_store_memory to {fits} or less, or enlarge it "
            f"(mount -o remount,size=... {base}; docker run --shm-size=...)"
        )
