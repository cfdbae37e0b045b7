"""What kind of file system a directory is on: spilling to one in memory frees none.

Reads the kernel's table of mounts. Decides nothing.
"""

from __future__ import annotations

import os
from typing import Final

#: File systems whose files are memory.
IN_MEMORY: Final = ("tmpfs", "ramfs")
_TABLE: Final = "/proc/self/mountinfo"


def file_system_of(path: str, table: str = _TABLE) -> str:
    """The type of the file system of a path ("ext4", "tmpfs"); "" where it cannot be told.

    By the device, as in ``table``: a path may lead anywhere through links and mounts.
    """
    try:
        device = os.stat(path).st_dev
        with open(table, encoding="utf-8", errors="replace") as file:
            rows = [line.split() for line in file]
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for row in rows:
        # id, parent, major:minor, root, mount point, options, any number of tags, "-", type, ...
        if len(row) > 2 and row[2] == wanted and "-" in row[6:]:
            return row[row.index("-", 6) + 1]
    return ""
