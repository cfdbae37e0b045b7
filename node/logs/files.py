"""The parts of a log that is rotated by renaming: x.out.2, x.out.1, x.out, as one row of bytes.

Covers: offsets since the log began, reading across parts, the last N lines. A part is known by its
inode, for its name changes. How many bytes were dropped before we first looked is not known: a log
begins where it is first seen, which for logs of this node's processes is their first line.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

#: At most so much is searched for the last N lines.
_SEARCH_BYTES_MAX: Final = 64 * 1024 * 1024
_BLOCK_BYTES: Final = 256 * 1024


class Part(NamedTuple):
    """A file of the row. ``base``: offset of its first byte since the log began."""

    path: str
    inode: int
    base: int
    size: int

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.base + self.size


class LogBook:
    """The parts of the logs in one directory, remembered from one look to the next."""

    def __init__(self, directory: str, backup_count: int) -> None:
        self.directory = directory
        self._backup_count = backup_count
        #: By log name: its parts at the last look, oldest first.
        self._known: dict[str, list[Part]] = {}

    def parts(self, name: str) -> list[Part]:
        """The parts of a log now, oldest first; none where there is no such file."""
        known = {part.inode: part for part in self._known.get(name, ())}
        reached = max((part.end for part in known.values()), default=0)
        parts: list[Part] = []
        for path, inode, size in self._find(name):
            before = known.get(inode)
            base = parts[-1].end if parts else reached
            # An inode number is used again once its file is gone: the same part has not shrunk,
            # and comes behind the part before it.
            if before is not None and size >= before.size and (not parts or before.base >= base):
                base = before.base
            parts.append(Part(path, inode, base, size))
        if parts:
            self._known[name] = parts
        return parts

    def forget(self, name: str) -> None:
        """The log is not looked at any more."""
        self._known.pop(name, None)

    def _find(self, name: str) -> list[tuple[str, int, int]]:
        found = []
        # No stop at a gap: in the middle of a rotation there is one.
        for number in range(self._backup_count, -1, -1):
            path = f"{self.directory}/{name}" + (f".{number}" if number else "")
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((path, status.st_ino, status.st_size))
        return found


def read(parts: list[Part], offset: int, max_bytes: int) -> bytes:
    """Up to ``max_bytes`` from ``offset``, across parts. Parts that were renamed meanwhile end it:
    the next look finds them again."""
    chunks = []
    for part in parts:
        if part.end <= offset or max_bytes <= 0:
            continue
        try:
            with open(part.path, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_ino != part.inode:
                    break
                file.seek(offset - part.base)
                data = file.read(min(max_bytes, part.end - offset))
        except OSError:
            break
        if not data:
            break
        chunks.append(data)
        offset += len(data)
        max_bytes -= len(data)
        if offset < part.end:
            break
    return b"".join(chunks)


def offset_of_last_lines(parts: list[Part], line_count: int) -> int:
    """Where the last ``line_count`` lines begin; a last line without newline counts."""
    if not parts:
        return 0
    end = parts[-1].end
    at = end
    newlines = 0
    first = True
    while at > parts[0].base and end - at < _SEARCH_BYTES_MAX:
        start = max(parts[0].base, at - _BLOCK_BYTES)
        block = read(parts, start, at - start)
        if not block:
            break
        if first and block.endswith(b"\n"):
            newlines -= 1
        first = False
        here = block.count(b"\n")
        if newlines + here >= line_count:
            # The newline before the first wanted line is in this block.
            position = len(block)
            while newlines < line_count:
                position = block.rindex(b"\n", 0, position)
                newlines += 1
            return start + position + 1
        newlines += here
        at = start
    return at
