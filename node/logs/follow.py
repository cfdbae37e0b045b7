"""Reads a growing log from its beginning, through its rotations, never the same byte twice.

Holds the current part open, so a part that is renamed or deleted is read to its end first. Knows
bytes and offsets only; lines are lines.py's.
"""

from __future__ import annotations

import os


class Follower:
    """Follows ``path``, whose older parts are ``path``.1, ``path``.2 …"""

    __slots__ = ("_backup_count", "_base", "_fd", "_path", "position")

    def __init__(self, path: str, backup_count: int) -> None:
        self._path = path
        self._backup_count = backup_count
        self._fd = -1
        #: Offset of the first byte of the part that is open.
        self._base = 0
        #: Offset of the next byte, counted since the log began.
        self.position = 0

    def read(self, max_bytes: int) -> bytes:
        """The next bytes; b"" where there are no more for now."""
        while True:
            if self._fd < 0 and not self._open_next():
                return b""
            data = os.pread(self._fd, max_bytes, self.position - self._base)
            if data:
                self.position += len(data)
                return data
            if not self._was_rotated():
                return b""
            # Whatever was written before the rotation is there by now.
            data = os.pread(self._fd, max_bytes, self.position - self._base)
            if data:
                self.position += len(data)
                return data
            if not self._open_next():
                return b""

    def unread_bytes(self) -> int:
        """How much there is to read, for now."""
        if self._fd < 0 and not self._open_next():
            return 0
        status = os.fstat(self._fd)
        unread = max(0, status.st_size - (self.position - self._base))
        newer = self._parts_after(status.st_ino)
        return unread + sum(size for _, _, size in newer)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _was_rotated(self) -> bool:
        try:
            return os.stat(self._path).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return False  # Deleted, or in the middle of a rotation: nothing newer is there yet.

    def _open_next(self) -> bool:
        newer = self._parts_after(os.fstat(self._fd).st_ino if self._fd >= 0 else -1)
        for path, inode, _ in newer:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                return False
            if os.fstat(fd).st_ino != inode:
                os.close(fd)  # Renamed between the two looks; the next look finds it.
                return False
            self.close()
            self._fd = fd
            self._base = self.position
            return True
        return False

    def _parts_after(self, inode: int) -> list[tuple[str, int, int]]:
        """Parts newer than the one with this inode, oldest first; all where it is not among them.

        An open part keeps its inode from being used again.
        """
        parts: list[tuple[str, int, int]] = []
        for number in range(self._backup_count, -1, -1):
            path = self._path + (f".{number}" if number else "")
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue
            if status.st_ino == inode:
                parts.clear()
            else:
                parts.append((path, status.st_ino, status.st_size))
        return parts
