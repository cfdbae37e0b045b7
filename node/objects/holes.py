"""Holes in files: giving the pages or blocks of a part back to the system."""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch_hole(fd: int, start: int, length: int) -> None:
    """Make a part of a file a hole, which reads as zeros. OSError where that is not possible."""
    while _libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, start, length):
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
