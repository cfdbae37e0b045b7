"""Directories of a node's store, and their locks: making, taking away, clearing those of the dead.

Owns <base>/mray-<uid>-<session>-<node>/ and the lock in it, for the arena (in /dev/shm) and for
spilled objects (on disks). Does not own what is written there.

A daemon holds its lock file (flock) for life; the kernel lets go of it when the daemon dies,
however it dies. So a directory whose lock can be taken belongs to nobody, and one whose lock cannot
be taken is never touched, whatever its name. A maker and a clearer of the same directory meet at
the lock: whoever gets it looks whether the lock file is still the one in the directory, and the
maker starts over if it is not.
"""

from __future__ import annotations

import fcntl
import os

ARENA_NAME = "arena"
OVERFLOW_NAME = "overflow"
LOCK_NAME = "lock"
SPILL_SUFFIX = ".spill"

_MAKE_ATTEMPTS = 10


class ArenaError(RuntimeError):
    """A store's directory or arena cannot be made. The text says why and what to do."""


def directory_name(session: str, node: str) -> str:
    """What the directory of a node is called: ``session`` is its name, ``node`` the id in hex.

    Raises ArenaError for a name with a slash.
    """
    name = f"mray-{os.getuid()}-{session}-{node[:8]}"
    if "/" in name:
        raise ArenaError(f"{name!r} cannot name a directory: it contains a slash")
    return name


def clean_stale(base: str = "/dev/shm") -> list[str]:
    """Remove the store directories of this user whose daemons are dead; returns their paths.

    Looks at directories mray-<uid>-* that this user owns, and removes one only after it has taken
    its lock and found nothing in it but a store's files.
    """
    prefix = f"mray-{os.getuid()}-"
    with os.scandir(base) as entries:
        paths = sorted(entry.path for entry in entries if entry.name.startswith(prefix))
    return [path for path in paths if clear(path)]


def clear(path: str) -> bool:
    """Remove one store directory if its daemon is dead, as clean_stale does; whether it did."""
    try:
        # Not by name alone: another user may have put a directory or a link there.
        place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.fstat(place).st_uid != os.getuid() or not _is_store(place):
            return False
        lock_fd = _lock(place, wait=False)
        if lock_fd is None:
            return False
        try:
            remove(path)
        finally:
            os.close(lock_fd)
        return True
    finally:
        os.close(place)


def _is_store(place: int) -> bool:
    plain = {ARENA_NAME, OVERFLOW_NAME, LOCK_NAME}
    return all(name in plain or name.endswith(SPILL_SUFFIX) for name in os.listdir(place))


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


def lock_new(directory: str) -> int:
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


def remove(directory: str) -> None:
    """Remove a store's files and its directory. The caller holds the lock."""
    try:
        # The lock last: while it is there, nobody else takes the directory for free.
        for name in sorted(os.listdir(directory), key=lambda name: name == LOCK_NAME):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)
    except FileNotFoundError:
        return
