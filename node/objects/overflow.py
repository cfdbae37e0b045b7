"""The overflow file: on disk, for what the arena cannot take. See space.py for its addresses.

Owns the file's descriptor, for punching. Its directory is a LocalDisk's, who takes it away.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from mray.node.objects.disks import LocalDisk
from mray.node.objects.holes import punch_hole
from mray.node.objects.ranges import Range


class Overflow:
    """The overflow file of a store of ``capacity_bytes``, on ``disk``. ArenaError without one."""

    def __init__(self, disk: LocalDisk, capacity_bytes: int) -> None:
        self.disk = disk
        #: What clients map, and how many addresses it has.
        self.path, self.length = disk.make_overflow(capacity_bytes)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

    def punch(self, ranges: Iterable[Range]) -> None:
        """Give parts of the file back to the disk. Raises OSError."""
        for start, length in ranges:
            punch_hole(self._fd, start, length)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
