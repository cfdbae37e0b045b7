"""``ray._private.utils``: the node's memory as programs written for Ray ask for it.

The same reading as everywhere in mray (mray.memory.usage). Only what mray does honestly is here.
"""

from __future__ import annotations

from typing import Final

from mray.memory.groups import read_file
from mray.memory.usage import read_memory

__all__ = ["estimate_available_memory", "get_system_memory", "get_used_memory"]

_V1_LIMIT: Final = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
_V2_LIMIT: Final = "/sys/fs/cgroup/memory.max"


def get_system_memory(
    memory_limit_filename: str = _V1_LIMIT, memory_limit_filename_v2: str = _V2_LIMIT
) -> int:
    """The memory that this process may use, in bytes: the machine's, or the tightest cgroup's.

    Other file names than the usual ones are read in place of our own cgroups: the first that is
    there limits the machine's memory; "max" and what is no number do not.
    """
    reading = read_memory()
    if (memory_limit_filename, memory_limit_filename_v2) == (_V1_LIMIT, _V2_LIMIT):
        return reading.limit_bytes
    for path in (memory_limit_filename, memory_limit_filename_v2):
        limit = read_file(path)
        if limit is not None:
            text = limit.strip()
            return min(int(text), reading.total_bytes) if text.isdigit() else reading.total_bytes
    return reading.total_bytes


def get_used_memory() -> int:
    """The memory in use, in bytes, file cache left out: what the memory monitor compares."""
    return read_memory().used_bytes


def estimate_available_memory() -> int:
    """What is left of get_system_memory(), in bytes."""
    reading = read_memory()
    return reading.limit_bytes - reading.used_bytes
