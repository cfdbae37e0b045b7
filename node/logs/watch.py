"""Which files of a directory have changed: inotify, or looking at all of them where it is spent.

Costs nothing while nobody writes. While somebody does, it reports at most every ``gap_s``: a flood
of writes is one report. Does not read files.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
from collections.abc import Callable
from typing import Final

from mray.rpc.pump import Pump

log = logging.getLogger("mray.node")

_IN_MODIFY: Final = 0x2
_IN_MOVED_FROM: Final = 0x40
_IN_MOVED_TO: Final = 0x80
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_Q_OVERFLOW: Final = 0x4000
_MASK: Final = _IN_MODIFY | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_EVENT: Final = struct.Struct("iIII")
_READ_BYTES: Final = 256 * 1024

#: The names that have changed; None: any may have.
OnChanged = Callable[[set[str] | None], None]


class DirectoryWatch:
    """Watches one directory, not what is below it."""

    def __init__(self, pump: Pump, path: str, on_changed: OnChanged, gap_s: float = 0.1) -> None:
        self._pump = pump
        self._path = path
        self._on_changed = on_changed
        self._gap_s = gap_s
        self._closed = False
        self._fd = _open_inotify(path)
        if self._fd >= 0:
            pump.door.watch(self._fd, self._report)
        else:
            pump.every(gap_s, self._poll)

    def _poll(self) -> None:
        if not self._closed:
            self._on_changed(None)

    def _report(self) -> None:
        names: set[str] | None = set()
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            if mask & _IN_Q_OVERFLOW:
                names = None
            elif names is not None:
                names.add(os.fsdecode(data[at : at + length].rstrip(b"\0")))
            at += length
        self._on_changed(names)
        # Events pile up as one until then.
        self._pump.door.unwatch(self._fd)
        self._pump.after(self._gap_s, self._listen_again)

    def _listen_again(self) -> None:
        if not self._closed:
            self._pump.door.watch(self._fd, self._report)

    def close(self) -> None:
        """Stop."""
        self._closed = True
        if self._fd >= 0:
            self._pump.door.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1


def _open_inotify(path: str) -> int:
    """An inotify descriptor on the directory, or -1 where the system has none to give."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(path), _MASK) >= 0:
        return fd
    number = ctypes.get_errno()
    if fd >= 0:
        os.close(fd)
    log.warning(
        "inotify cannot be had (%s; fs.inotify.max_user_instances?): looking at the logs every "
        "100 ms instead",
        os.strerror(number),
    )
    return -1
