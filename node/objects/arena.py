"""The arena: one sparse file in shared memory, its directory and its lock.

Owns the files <base>/mray-<uid>-<session>-<node>/{arena,lock}: making them, punching holes, taking
them away, and clearing those of dead daemons. Does not know what lies where: allocator.py does.

A daemon holds its lock file (flock) for life; the kernel lets go of it when the daemon dies,
however it dies. So a directory whose lock can be taken belongs to nobody, and one whose lock cannot
be taken is never touched, whatever its name. A maker and a clearer of the same directory meet at
the lock: whoever gets it looks whether the lock file is still the one in the directory, and the
maker starts over if it is not.

Memory is claimed by writers with posix_fallocate, so that a full file system is an error and not
SIGBUS: on a 1 MiB tmpfs, ftruncate and a touch of the second MiB kill the process.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterable

from mray.node.objects.allocator import ADDRESS_MULTIPLE
from mray.node.objects.ranges import Range
from mray.units import MIB, TIB, format_bytes

DEFAULT_BASE = "/dev/shm"
ARENA_NAME = "arena"
LOCK_NAME = "lock"
#: What every offset and length in an arena is a multiple of, so that any range can be mapped.
PAGE_BYTES = mmap.ALLOCATIONGRANULARITY

#: File systems and address spaces end somewhere (ext4: 16 TiB a file, x86: 128 TiB mapped).
_VIRTUAL_BYTES_MAX = 8 * TIB
_MAKE_ATTEMPTS = 10
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class ArenaError(RuntimeError):
    """The arena cannot be made. The text says why and what to do."""


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
        name = f"mray-{os.getuid()}-{session}-{node[:8]}"
        if "/" in name:
            raise ArenaError(f"{name!r} cannot name a directory: it contains a slash")
        directory = os.path.join(base, name)
        lock_fd = _lock_new(directory)
        fd = -1
        virtual_bytes = max(
            capacity_bytes, min(capacity_bytes * ADDRESS_MULTIPLE, _VIRTUAL_BYTES_MAX)
        )
        try:
            path = os.path.join(directory, ARENA_NAME)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.ftruncate(fd, virtual_bytes)
            os.posix_fallocate(fd, 0, PAGE_BYTES)
            _punch(fd, 0, PAGE_BYTES)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            _remove(directory)
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
            _punch(self._fd, start, length)

    def resident_bytes(self) -> int:
        """How much memory the file holds."""
        return os.fstat(self._fd).st_blocks * 512

    def close(self) -> None:
        """Take the files away and let go of the lock. What clients still map lives on."""
        if self._fd < 0:
            return
        _remove(self.directory)
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


def clean_stale(base: str = DEFAULT_BASE) -> list[str]:
    """Remove the store directories of this user whose daemons are dead; returns their paths.

    Looks at directories mray-<uid>-* that this user owns, and removes one only after it has taken
    its lock and found nothing in it but a store's files.
    """
    uid = os.getuid()
    prefix = f"mray-{uid}-"
    removed = []
    with os.scandir(base) as entries:
        paths = sorted(entry.path for entry in entries if entry.name.startswith(prefix))
    for path in paths:
        try:
            # Not by name alone: another user may have put a directory or a link there.
            place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(place).st_uid != uid or not _is_store(place):
                continue
            lock_fd = _lock(place, wait=False)
            if lock_fd is None:
                continue
            try:
                _remove(path)
            finally:
                os.close(lock_fd)
            removed.append(path)
        finally:
            os.close(place)
    return removed


def _is_store(place: int) -> bool:
    return set(os.listdir(place)) <= {ARENA_NAME, LOCK_NAME}


def _lock(place: int, *, wait: bool) -> int | None:
    """Lock the directory ``place``; None if it is gone, or (unless ``wait``) somebody has it."""
    try:
        fd = os.open(
            LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=place
        )
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(LOCK_NAME, dir_fd=place)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        os.close(fd)
        return None
    os.close(fd)
    return None


def _lock_new(directory: str) -> int:
    """Make ``directory`` and lock it, against anyone who clears it at the same time."""
    for _ in range(_MAKE_ATTEMPTS):
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            clean_stale(os.path.dirname(directory))
            if os.path.lexists(directory):
                raise ArenaError(
                    f"{directory} exists and is in use, or is not this user's store: a node of the "
                    "same name runs; stop it or start this one in another session"
                ) from None
            continue
        except OSError as error:
            raise ArenaError(f"cannot make {directory}: {error.strerror}") from error
        try:
            place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            # Only one who clears stale directories can have it, and not for long.
            fd = _lock(place, wait=True)
        finally:
            os.close(place)
        if fd is not None:
            return fd
    raise ArenaError(f"{directory} was cleared {_MAKE_ATTEMPTS} times while it was being made")


def _remove(directory: str) -> None:
    """Remove a store's files and its directory. The caller holds the lock."""
    # The lock last: while it is there, nobody else takes the directory for free.
    for name in (ARENA_NAME, LOCK_NAME):
        try:
            os.unlink(os.path.join(directory, name))
        except FileNotFoundError:
            continue
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return


def _punch(fd: int, start: int, length: int) -> None:
    while _libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, start, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
